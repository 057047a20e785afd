//! The conversation with a hawkBit server.
//!
//! Each poll in this order: a cancel first (it hides everything else), then attributes, consent, the deployment. Details are fetched
//! only when their link changed or their links are needed again, since reading them changes the action at the operator. An action
//! that was closed is never asked for again.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use link::cloud::{Cloud, CloudError, News, Polled, Reported, Situation, Why};
use link::config::Config;
use link::deployment::{News as Told, Report};
use link::offer::{DeploymentId, Gate, Offer};
use link::web::{Address, Answer, Call, Web};
use serde_json::{Value, json};

use crate::attributes;
use crate::ddi::{
    self, ANSWER_BYTES_MAX, ActionLink, Channel, Consent, DETAILS_BYTES_MAX, Deployment, Execution,
    Feedback, Finished, Refusal, Root,
};
use crate::settings::{Consenting, Settings};

/// Reports about progress that an action gets at most: a server keeps 1000 rows of all kinds.
const PROGRESS_MAX: u32 = 100;
/// Pause after "too many requests" that does not say how long.
const TOO_MANY_PAUSE: Duration = Duration::from_secs(1);

/// The server of this device.
#[derive(Debug, Default)]
pub struct Hawkbit {
    door: Option<Door>,
    /// The last root answer and its tag.
    root: Option<(HeaderValue, Root)>,
    /// The offer of the last link.
    offered: Option<(String, Box<Offer>)>,
    /// An action that waits for consent at the server, and what it was answered.
    asked: Option<(DeploymentId, Option<bool>)>,
    /// The attributes that the server has.
    told: Option<BTreeMap<String, String>>,
    welcomed: bool,
    stated: bool,
    /// An action, its progress reports, and whether its quota is used up.
    budget: Option<(DeploymentId, u32, bool)>,
}

#[derive(Debug, Clone)]
struct Door {
    settings: Settings,
    web: Web,
}

/// What became of a report.
enum Sent {
    Taken,
    Gone,
    Quota,
    Malformed(String),
}

impl Door {
    fn call(&self, method: Method, address: Address) -> Call {
        Call::new(method, address)
            .credentials(self.settings.credentials.clone())
            .header(header::ACCEPT, HeaderValue::from_static("application/json"))
    }

    fn below(&self, path: &str) -> Result<Address, CloudError> {
        let root = &self.settings.root;
        let text = format!("{}{}/{path}", root.origin(), root.path());
        Address::parse(&text).map_err(|error| bad(error.to_string()))
    }

    async fn ask(&self, call: &Call, bytes_max: usize) -> Result<Answer, CloudError> {
        let answer = self.web.call(call, bytes_max).await;
        answer.map_err(|error| {
            if error.may_pass() {
                CloudError::Unreachable {
                    reason: error.whole(),
                    retry_after: None,
                }
            } else {
                bad(error.whole())
            }
        })
    }

    /// A resource that the server gave a link to. The credentials go to its own origin only.
    async fn follow(&self, href: &str, bytes_max: usize) -> Result<Answer, CloudError> {
        let address = self
            .settings
            .root
            .join(href)
            .map_err(|error| bad(format!("a link of the server: {error}")))?;
        if address.origin() != self.settings.root.origin() {
            return Err(bad(format!(
                "a link leads to {}, which is not the server (is it behind a proxy that it does not know of?)",
                address.origin()
            )));
        }
        self.ask(&self.call(Method::GET, address), bytes_max).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(StatusCode, Refusal), CloudError> {
        let call = self.call(method, self.below(path)?).json(body);
        let answer = self.ask(&call, ANSWER_BYTES_MAX).await?;
        let refusal = Refusal::parse(&answer.body);
        if answer.status.is_success()
            || refusal.is_quota()
            || matches!(answer.status.as_u16(), 400 | 404 | 405 | 410 | 413 | 422)
        {
            return Ok((answer.status, refusal));
        }
        Err(refused(&answer))
    }
}

fn bad(reason: String) -> CloudError {
    CloudError::BadAnswer { reason }
}

/// An answer that is none, sorted by what can be done about it.
fn refused(answer: &Answer) -> CloudError {
    let refusal = Refusal::parse(&answer.body);
    let said = refusal.message.map(|text| format!(": {text}"));
    let reason = format!("{}{}", answer.status, said.unwrap_or_default());
    match answer.status.as_u16() {
        401 => CloudError::NotAllowed {
            reason: "401: the token, the name of this device or the tenant is wrong, or the server has this kind of token switched off".to_owned(),
        },
        403 => CloudError::NotAllowed { reason },
        429 => CloudError::Unreachable {
            reason,
            retry_after: Some(answer.retry_after().unwrap_or(TOO_MANY_PAUSE)),
        },
        408 | 409 | 425 | 500..=599 => CloudError::Unreachable {
            reason,
            retry_after: answer.retry_after(),
        },
        _ => CloudError::BadAnswer { reason },
    }
}

fn deployment_id(link: &ActionLink) -> Result<DeploymentId, CloudError> {
    let id = link.id.as_str().parse();
    id.map_err(|_| bad(format!("an action called {:?}", link.id.as_str())))
}

impl Hawkbit {
    /// A client that has not asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn door(&self) -> Result<Door, CloudError> {
        self.door.clone().ok_or_else(|| CloudError::NotAllowed {
            reason: "the settings cannot be used".to_owned(),
        })
    }

    async fn root(&mut self, door: &Door) -> Result<Root, CloudError> {
        let mut call = door.call(Method::GET, door.settings.root.clone());
        if let Some((tag, _)) = &self.root {
            call = call.header(header::IF_NONE_MATCH, tag.clone());
        }
        let answer = door.ask(&call, ANSWER_BYTES_MAX).await?;
        match (answer.status, &self.root) {
            (StatusCode::NOT_MODIFIED, Some((_, root))) => return Ok(root.clone()),
            (StatusCode::OK, _) => {}
            (StatusCode::NOT_FOUND, _) => {
                return Err(CloudError::NotAllowed {
                    reason: "404: the server knows neither this tenant nor this path".to_owned(),
                });
            }
            _ => return Err(refused(&answer)),
        }
        let root = Root::parse(&answer.body).map_err(|error| bad(error.to_string()))?;
        let tag = answer.headers.get(header::ETAG).cloned();
        self.root = tag.map(|tag| (tag, root.clone()));
        Ok(root)
    }

    /// What the server is told beside deployments. Nothing of it may keep an update away.
    async fn tell(&mut self, door: &Door, root: &Root, situation: &Situation) {
        let now = attributes::chosen(&situation.attributes, &door.settings.attributes);
        let asked = root.attributes.is_some();
        let changed = self.told.as_ref().is_some_and(|told| *told != now);
        let now = if asked && now.is_empty() {
            // Some servers offer nothing before they have been told something.
            let client = ("client".to_owned(), "coxswain-hawkbit".to_owned());
            BTreeMap::from([client])
        } else {
            now
        };
        if (asked || changed) && !now.is_empty() {
            // Merged: a device does not own what an operator's rule may have put beside.
            let body = json!({"mode": "merge", "data": now});
            match door.send(Method::PUT, "configData", &body).await {
                Ok((status, _)) if status.is_success() => {}
                Ok((status, refusal)) => {
                    let why = refusal.message.unwrap_or_default();
                    tracing::warn!(
                        "the server does not take the device's attributes: {status} {why}"
                    );
                }
                Err(error) => {
                    tracing::warn!("the device's attributes are not told: {error}");
                    return;
                }
            }
            self.told = Some(now);
        }
        if let Some((name, version)) = &door.settings.installed_set
            && !self.stated
            && root.installed.is_none()
            && root.deployment.is_none()
        {
            let body = json!({"name": name, "version": version});
            match door.send(Method::PUT, "installedBase", &body).await {
                Ok((status, refusal)) => {
                    self.stated = true;
                    if !status.is_success() {
                        let why = refusal.message.unwrap_or_default();
                        tracing::warn!("installed-set is not taken: {status} {why}");
                    }
                }
                Err(error) => tracing::warn!("installed-set is not told: {error}"),
            }
        }
        if door.settings.consenting == Consenting::Beforehand && !self.welcomed {
            let body = json!({"initiator": "coxswain-hawkbit", "remark": "setting confirmation"});
            let path = "confirmationBase/activateAutoConfirm";
            match door.send(Method::POST, path, &body).await {
                Ok((status, refusal)) => {
                    self.welcomed = true;
                    if !status.is_success() {
                        let why = refusal.message.unwrap_or_default();
                        tracing::warn!("the server knows no auto-confirmation: {status} {why}");
                    }
                }
                // Active already.
                Err(CloudError::Unreachable { reason, .. }) if reason.starts_with("409") => {
                    self.welcomed = true;
                }
                Err(error) => tracing::warn!("auto-confirmation is not switched on: {error}"),
            }
        }
    }

    /// An action waits for consent. Whether the root should be asked again at once.
    async fn consent(
        &mut self,
        door: &Door,
        id: &DeploymentId,
        situation: &Situation,
    ) -> Result<bool, CloudError> {
        let before = match &self.asked {
            Some((asked, answered)) if asked == id => *answered,
            Some(_) | None => None,
        };
        let person = situation.consents.iter().rev().find(|(one, _)| one == id);
        let answer = match (door.settings.consenting, person) {
            (Consenting::AtServer, _) => None,
            (Consenting::Here { .. } | Consenting::Beforehand, Some((_, given))) => Some(*given),
            (Consenting::Here { always: true } | Consenting::Beforehand, None) => Some(true),
            (Consenting::Here { always: false }, None) => None,
        };
        self.asked = Some((id.clone(), before));
        let Some(given) = answer.filter(|given| before != Some(*given)) else {
            return Ok(false);
        };
        let line = match (given, person.is_some()) {
            (true, true) => "a person at the device agrees",
            (true, false) => "the device's settings agree to every deployment",
            (false, _) => "a person at the device does not agree",
        };
        let consent = Consent {
            given,
            line: line.to_owned(),
        };
        let path = format!("confirmationBase/{id}/feedback");
        let (status, refusal) = door.send(Method::POST, &path, &consent.body()).await?;
        if !status.is_success() && status != StatusCode::NOT_FOUND && status != StatusCode::GONE {
            let why = refusal.message.unwrap_or_default();
            tracing::warn!("the server does not take the consent to action {id}: {status} {why}");
            return Ok(false);
        }
        // Where it is not found, nobody asks for it any more.
        tracing::info!("consent to action {id}: {line} ({status})");
        self.asked = Some((id.clone(), Some(given)));
        Ok(given)
    }

    /// What is offered while consent is missing: everything about it, and nothing may be done.
    async fn waiting(&mut self, door: &Door, link: &ActionLink) -> Result<News, CloudError> {
        let id = deployment_id(link)?;
        let denied = matches!(&self.asked, Some((asked, Some(false))) if *asked == id);
        let news = self.details(door, link, false).await?;
        let News::Offer(mut offer) = news else {
            return Ok(news);
        };
        let reason = match (door.settings.consenting, denied) {
            (Consenting::AtServer, _) => {
                "somebody has to confirm the deployment at the server".to_owned()
            }
            (_, true) => "consent was denied; the operator has to cancel the deployment".to_owned(),
            (_, false) => format!(
                "consent is asked for: set the user metadata hawkbit.consent to {id}, or to deny:{id}"
            ),
        };
        let wait = Gate::Wait { reason };
        (offer.download, offer.install) = (wait.clone(), wait);
        Ok(News::Offer(offer))
    }

    /// The details of an action; from before while its link is the same.
    async fn details(
        &mut self,
        door: &Door,
        link: &ActionLink,
        fresh: bool,
    ) -> Result<News, CloudError> {
        if let Some((href, offer)) = &self.offered
            && *href == link.href
            && !fresh
        {
            return Ok(News::Offer(offer.clone()));
        }
        let id = deployment_id(link)?;
        let answer = door.follow(&link.href, DETAILS_BYTES_MAX).await?;
        match answer.status.as_u16() {
            200 => {}
            // Cancelled or superseded between the two calls: the next poll says which.
            404 | 410 => {
                self.root = None;
                return Ok(News::NoChange);
            }
            _ => return Err(refused(&answer)),
        }
        let unreadable = |reason: String| News::Unreadable {
            id: id.clone(),
            reason,
        };
        let deployment = match Deployment::parse(&answer.body) {
            Ok(deployment) => deployment,
            Err(error @ ddi::DdiError::NotJson { .. }) => return Err(bad(error.to_string())),
            // gooseBit's way to say 404.
            Err(_) if answer.body.trim_ascii() == b"null" => {
                self.root = None;
                return Ok(News::NoChange);
            }
            Err(error) => return Ok(unreadable(error.to_string())),
        };
        if deployment.id != link.id {
            return Err(bad(format!(
                "the server answers with action {} when asked for {}",
                deployment.id, link.id
            )));
        }
        let credentials = door.settings.credentials.as_ref();
        match crate::offer::offer(&deployment, &door.settings.root, credentials) {
            Ok(mut offer) => {
                // hawkBit never offers an action again that was closed; gooseBit does, when an operator forces it.
                offer.again = door.settings.failed_again;
                let offer = Box::new(offer);
                self.offered = Some((link.href.clone(), offer.clone()));
                Ok(News::Offer(offer))
            }
            Err(reason) => Ok(unreadable(reason)),
        }
    }

    async fn cancel(&mut self, door: &Door, link: &ActionLink) -> Result<News, CloudError> {
        let answer = door.follow(&link.href, ANSWER_BYTES_MAX).await?;
        let id = match answer.status.as_u16() {
            200 => ddi::stop_id(&answer.body).map_err(|error| bad(error.to_string()))?,
            404 | 410 => {
                self.root = None;
                return Ok(News::NoChange);
            }
            _ => return Err(refused(&answer)),
        };
        let id = id.as_str().parse();
        Ok(News::Cancel(
            id.map_err(|_| bad("a cancel without id".to_owned()))?,
        ))
    }

    async fn send(
        &self,
        door: &Door,
        channel: Channel,
        id: &DeploymentId,
        feedback: &Feedback,
    ) -> Result<Sent, CloudError> {
        let path = format!("{}/{id}/feedback", channel.resource());
        let (status, refusal) = door.send(Method::POST, &path, &feedback.body()).await?;
        let why = refusal.message.clone().unwrap_or_default();
        Ok(match status.as_u16() {
            _ if refusal.is_quota() => Sent::Quota,
            400 | 413 | 422 => Sent::Malformed(why),
            404 | 405 | 410 => Sent::Gone,
            _ => Sent::Taken,
        })
    }

    /// The last word is refused since the action's rows are used up, which happens to `downloaded` alone. `closed` would be a lie: it
    /// says installed. The operator can cancel the action, and it is given up then; nothing was installed.
    async fn end_without_rows(
        &self,
        door: &Door,
        id: &DeploymentId,
    ) -> Result<Reported, CloudError> {
        let line = "everything was fetched; the action's quota did not let the device say so";
        let given_up = Feedback::new(Execution::Closed, Finished::Success, line);
        match self.send(door, Channel::Cancel, id, &given_up).await? {
            Sent::Taken => Ok(Reported::Taken),
            Sent::Gone | Sent::Quota | Sent::Malformed(_) => Err(CloudError::NotAllowed {
                reason: format!(
                    "action {id} has used up its quota and cannot be ended; the operator has to cancel it"
                ),
            }),
        }
    }

    /// Whether a report that is not the last one may be sent: rows at the server are few.
    fn may_send(&mut self, id: &DeploymentId, is_progress: bool) -> bool {
        match &mut self.budget {
            Some((of, _, true)) if of == id => false,
            Some((of, count, false)) if of == id => {
                *count += u32::from(is_progress);
                !is_progress || *count <= PROGRESS_MAX
            }
            Some(_) | None => {
                self.budget = Some((id.clone(), u32::from(is_progress), false));
                true
            }
        }
    }

    async fn deliver(
        &mut self,
        door: &Door,
        channel: Channel,
        report: &Report,
        feedback: Feedback,
    ) -> Result<Reported, CloudError> {
        let id = &report.deployment;
        let is_progress = matches!(report.news, Told::Progress(_));
        if !report.is_final() && channel == Channel::Deployment && !self.may_send(id, is_progress) {
            return Ok(Reported::Taken);
        }
        let mut sent = self.send(door, channel, id, &feedback).await?;
        if report.is_final() && matches!(sent, Sent::Quota | Sent::Malformed(_)) {
            // The last word must arrive: without what a quota or an old server may not like.
            sent = self.send(door, channel, id, &feedback.bare()).await?;
        }
        match (sent, report.is_final()) {
            (Sent::Taken, _) => Ok(Reported::Taken),
            // A cancel that the server no longer wants is no matter for the deployment.
            (Sent::Gone, false) if channel == Channel::Cancel => Ok(Reported::Taken),
            (Sent::Gone, _) => Ok(Reported::Gone),
            (Sent::Quota, false) => {
                tracing::warn!("action {id}: the server takes no more reports but the last");
                self.budget = Some((id.clone(), 0, true));
                Ok(Reported::Taken)
            }
            (Sent::Quota, true) => self.end_without_rows(door, id).await,
            (Sent::Malformed(why), last) => {
                tracing::error!("action {id}: the server cannot read a report: {why}");
                Ok(if last {
                    Reported::Gone
                } else {
                    Reported::Taken
                })
            }
        }
    }
}

/// A report in hawkBit's words.
fn feedback(report: &Report) -> (Channel, Feedback) {
    let line = report.text();
    let on = |execution, finished| {
        (
            Channel::Deployment,
            Feedback::new(execution, finished, &line),
        )
    };
    match &report.news {
        Told::Accepted | Told::Installing { .. } | Told::Observing { .. } => {
            on(Execution::Proceeding, Finished::None)
        }
        Told::Waiting { .. } => on(Execution::Scheduled, Finished::None),
        Told::Progress(fetched) => {
            let (channel, mut feedback) = on(Execution::Download, Finished::None);
            feedback.progress = Some((fetched.objects, fetched.objects_total));
            (channel, feedback)
        }
        Told::Downloaded | Told::DownloadedOnly => on(Execution::Downloaded, Finished::None),
        Told::Done { .. } => on(Execution::Closed, Finished::Success),
        Told::Failed { trouble } | Told::Refused { trouble } => {
            let (channel, mut feedback) = on(Execution::Closed, Finished::Failure);
            feedback.code = Some(trouble.code.number());
            feedback.details.extend(trouble.details.iter().cloned());
            (channel, feedback)
        }
        Told::Cancelled => (
            Channel::Cancel,
            Feedback::new(Execution::Closed, Finished::Success, &line),
        ),
        Told::CancelRefused { .. } => (
            Channel::Cancel,
            Feedback::new(Execution::Rejected, Finished::None, &line),
        ),
    }
}

impl Cloud for Hawkbit {
    fn configure(&mut self, config: &Config, web: &Web) -> Result<(), String> {
        let settings = match Settings::read(config) {
            Ok(settings) => settings,
            Err(reason) => {
                self.door = None;
                return Err(reason);
            }
        };
        let moved = self
            .door
            .as_ref()
            .is_some_and(|door| door.settings.root != settings.root);
        if moved {
            *self = Self::default();
        }
        self.door = Some(Door {
            settings,
            web: web.clone(),
        });
        Ok(())
    }

    async fn poll(&mut self, situation: &Situation) -> Result<Polled, CloudError> {
        let door = self.door()?;
        if situation.why == Why::Closed {
            // What the server shows has changed by our own report, whatever its tag says.
            self.root = None;
        }
        let mut root = self.root(&door).await?;
        let interval = root.sleep;
        let polled = |news| Ok(Polled { news, interval });
        if let Some(link) = &root.cancel {
            return polled(self.cancel(&door, link).await?);
        }
        self.tell(&door, &root, situation).await;
        if let Some(link) = &root.confirmation {
            let id = deployment_id(link)?;
            let again = self.consent(&door, &id, situation).await?;
            if again {
                root = self.root(&door).await?;
            }
        }
        if let Some(link) = &root.confirmation {
            return polled(self.waiting(&door, link).await?);
        }
        self.asked = None;
        let Some(link) = &root.deployment else {
            self.offered = None;
            return polled(News::Nothing);
        };
        let fresh = matches!(situation.why, Why::Links | Why::Restarted);
        polled(self.details(&door, link, fresh).await?)
    }

    async fn report(&mut self, report: &Report) -> Result<Reported, CloudError> {
        let door = self.door()?;
        if let Some((asked, _)) = &self.asked
            && *asked == report.deployment
            && !report.is_final()
        {
            // Before it is confirmed the server takes no reports about an action.
            return Ok(Reported::Taken);
        }
        let (channel, feedback) = feedback(report);
        self.deliver(&door, channel, report, feedback).await
    }
}

#[cfg(test)]
mod tests;
