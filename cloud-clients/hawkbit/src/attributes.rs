//! What the server is told of the device, made to fit what every release takes.

use std::collections::BTreeMap;

/// Attributes that a target may have.
pub const ATTRIBUTES_MAX: usize = 100;
/// Characters of a key or a value.
pub const CHARS_MAX: usize = 128;

/// The entries of device metadata whose keys are wanted; at most 100, cut where they are too long, and with `_` for signs that no
/// server takes.
pub fn chosen(device: &BTreeMap<String, String>, wanted: &[String]) -> BTreeMap<String, String> {
    let fits = |key: &str| {
        wanted.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => key == wanted,
        })
    };
    device
        .iter()
        .filter(|(key, _)| fits(key))
        .map(|(key, value)| (plain(key), plain(value)))
        .filter(|(key, _)| !key.is_empty())
        .take(ATTRIBUTES_MAX)
        .collect()
}

fn plain(text: &str) -> String {
    text.chars()
        .map(|sign| {
            let good =
                sign.is_ascii_alphanumeric() || " _-!@#$%^&*()+=[]{}|;:'\",.<>/\\?".contains(sign);
            if good { sign } else { '_' }
        })
        .take(CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_server_takes_is_not_sent() {
        let device: BTreeMap<String, String> = [
            ("pantavisor.version", "1.0~rc1 für\nalle"),
            ("pantavisor.arch", "x"),
            ("secret", "y"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        let wanted = ["pantavisor.*".to_owned()];
        let found = chosen(&device, &wanted);
        assert_eq!(found.len(), 2);
        assert_eq!(found["pantavisor.version"], "1.0_rc1 f_r_alle");
        let long = BTreeMap::from([("k".repeat(300), "v".repeat(300))]);
        let found = chosen(&long, &["*".to_owned()]);
        assert!(found.iter().all(|(k, v)| k.len() == 128 && v.len() == 128));
        let many: BTreeMap<String, String> =
            (0..500).map(|n| (format!("{n}"), String::new())).collect();
        assert_eq!(chosen(&many, &["*".to_owned()]).len(), ATTRIBUTES_MAX);
    }
}
