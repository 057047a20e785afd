//! Which user and groups a container's processes get: `user[:group]` looked up in the container's own files.

use std::path::Path;

use crate::inside;

/// Bytes of `/etc/passwd` and `/etc/group` that are looked at.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Supplementary groups of one user (the kernel takes 65,536).
const GROUPS_MAX: usize = 1024;

/// A user as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// Home folder, when the container's files know one.
    pub(crate) home: Option<String>,
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    #[error("user {0:?} is not in the container's /etc/passwd; name one that is, or use a number")]
    NoUser(String),
    #[error("group {0:?} is not in the container's /etc/group; name one that is, or use a number")]
    NoGroup(String),
}

/// Looks up `wanted` (`user`, `user:group`, names or numbers; empty is root) in the root file system.
pub(crate) fn look_up(rootfs: &Path, wanted: &str) -> Result<User, UserError> {
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = inside::read_text(rootfs, "/etc/passwd", FILE_BYTES_MAX);
    let groups = inside::read_text(rootfs, "/etc/group", FILE_BYTES_MAX);
    resolve(
        &passwd,
        &groups,
        user,
        group.filter(|group| !group.is_empty()),
    )
}

fn resolve(passwd: &str, groups: &str, user: &str, group: Option<&str>) -> Result<User, UserError> {
    let number: Option<u32> = user.parse().ok();
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else {
            return None;
        };
        let uid: u32 = uid.parse().ok()?;
        let fits = match number {
            Some(number) => uid == number,
            None => name == user,
        };
        fits.then(|| (name, uid, gid.parse().unwrap_or(0), home))
    });
    let mut found = match (entry, number) {
        (Some((_, uid, gid, home)), _) => User {
            uid,
            gid,
            groups: Vec::new(),
            home: (!home.is_empty()).then(|| home.to_owned()),
        },
        (None, Some(uid)) => User {
            uid,
            ..User::default()
        },
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    match group {
        Some(group) => found.gid = group_number(groups, group)?,
        None => {
            if let Some((name, ..)) = entry {
                found.groups = groups_of(groups, name);
            }
        }
    }
    // Its own group too: else dropping it would open what is denied to that group (CVE-2023-25173).
    found.groups.retain(|group| *group != found.gid);
    found.groups.insert(0, found.gid);
    Ok(found)
}

fn group_number(groups: &str, wanted: &str) -> Result<u32, UserError> {
    if let Ok(number) = wanted.parse() {
        return Ok(number);
    }
    group_lines(groups)
        .find(|(name, ..)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| UserError::NoGroup(wanted.to_owned()))
}

fn groups_of(groups: &str, user: &str) -> Vec<u32> {
    group_lines(groups)
        .filter(|(.., members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
        .take(GROUPS_MAX)
        .collect()
}

fn group_lines(groups: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nvideo:x:44:a,web\n";

    #[test]
    fn users_by_name_and_number() {
        let web = User {
            uid: 33,
            gid: 34,
            groups: vec![34, 44],
            home: Some("/srv".into()),
        };
        assert_eq!(resolve(PASSWD, GROUP, "web", None), Ok(web.clone()));
        assert_eq!(resolve(PASSWD, GROUP, "33", None), Ok(web));
        let other = resolve(PASSWD, GROUP, "1000", Some("video")).unwrap();
        assert_eq!((other.uid, other.gid, other.groups.len()), (1000, 44, 1));
        let no_user = UserError::NoUser("x".into());
        assert_eq!(resolve(PASSWD, GROUP, "x", None), Err(no_user));
        let no_group = UserError::NoGroup("y".into());
        assert_eq!(resolve(PASSWD, GROUP, "0", Some("y")), Err(no_group));
        let root = User {
            groups: vec![0],
            ..User::default()
        };
        assert_eq!(resolve("", "", "0", None), Ok(root));
    }
}
