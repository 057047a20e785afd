//! The root resource: how long to sleep, and what there is.

use std::time::Duration;

use super::{ActionId, DdiError, href, json, wrong};

const WHAT: &str = "the server's root answer";

/// A link to something about an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionLink {
    /// The action, from the link's path.
    pub id: ActionId,
    /// The link, followed as it is.
    pub href: String,
}

/// What a poll says. Of `deployment`, `confirmation` and `cancel` hawkBit shows one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Root {
    /// Time to the next poll; `None` when there is none that can be understood.
    pub sleep: Option<Duration>,
    /// An update.
    pub deployment: Option<ActionLink>,
    /// An update that waits for somebody's consent.
    pub confirmation: Option<ActionLink>,
    /// An update that is to be stopped.
    pub cancel: Option<ActionLink>,
    /// What is installed as far as the server knows.
    pub installed: Option<ActionLink>,
    /// The server wants to know the device's attributes.
    pub attributes: Option<String>,
}

impl Root {
    /// Reads a poll's answer.
    ///
    /// # Errors
    /// See [`DdiError`].
    pub fn parse(body: &[u8]) -> Result<Self, DdiError> {
        let value = json(WHAT, body)?;
        if !value.is_object() {
            return Err(wrong(WHAT, "it", "is no object"));
        }
        let link = |rel: &'static str| match href(&value, rel) {
            None => Ok(None),
            Some(href) => {
                let path = href.split(['?', '#']).next().unwrap_or_default();
                let last = path.rsplit('/').next().unwrap_or_default();
                let id = ActionId::parse(last)
                    .ok_or_else(|| wrong(WHAT, rel, "leads to something without an id"))?;
                let href = href.to_owned();
                Ok(Some(ActionLink { id, href }))
            }
        };
        let sleep = value["config"]["polling"]["sleep"].as_str();
        Ok(Self {
            sleep: sleep.and_then(super::parse_sleep),
            deployment: link("deploymentBase")?,
            confirmation: link("confirmationBase")?,
            cancel: link("cancelAction")?,
            // A convenience only: a server that writes it oddly still has updates.
            installed: link("installedBase").unwrap_or_default(),
            attributes: href(&value, "configData").map(str::to_owned),
        })
    }
}

/// What `cancelAction` wants stopped.
///
/// # Errors
/// See [`DdiError`].
pub fn stop_id(body: &[u8]) -> Result<ActionId, DdiError> {
    let what = "the server's cancelAction";
    let value = json(what, body)?;
    let stop = value["cancelAction"]["stopId"].as_str();
    stop.and_then(ActionId::parse)
        .ok_or_else(|| wrong(what, "stopId", "is missing or no id"))
}
