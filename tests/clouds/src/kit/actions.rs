//! Cases about the life of an action: cancels, windows, consent, quotas, reports.

use super::{Case, PLAIN, Sent, Stage, Until, plain, success};
use crate::hawkbit::Release;

fn cancelled(sent: &Sent) -> Result<(), String> {
    sent.must("cancelAction", "closed/success")?;
    sent.must_not("deploymentBase", "closed/success")?;
    sent.must_not("deploymentBase", "closed/failure")
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "cancel-closed",
        what: "a cancel hides the next deployment until it is answered with closed",
        stage: Stage::Superseded,
        judge: |sent| {
            sent.must("cancelAction", "closed/success")?;
            success(sent)
        },
        ..PLAIN
    },
    Case {
        name: "cancel-later",
        what: "files vanish because the action was cancelled: no failure, but an answer to the cancel",
        stage: Stage::CancelledLater,
        mangle: |request, answer, _| {
            if request.path.contains("/artifacts/") {
                plain(404, "")
            } else {
                answer
            }
        },
        until: Until::Said("cancelAction", "closed/success"),
        judge: cancelled,
        ..PLAIN
    },
    Case {
        name: "window-lapsed",
        what: "a window that is over cancels the action at the very poll",
        stage: Stage::Lapsed,
        until: Until::Said("cancelAction", "closed/success"),
        judge: cancelled,
        ..PLAIN
    },
    Case {
        name: "skip-window",
        what: "update is skip because the window is closed: fetch, never close",
        stage: Stage::Closed,
        until: Until::Said("deploymentBase", "downloaded/none"),
        judge: |sent| {
            sent.must("deploymentBase", "downloaded/none")?;
            sent.must_not("deploymentBase", "closed/success")?;
            sent.must_not("deploymentBase", "closed/failure")
        },
        ..PLAIN
    },
    Case {
        name: "download-only",
        what: "download only: downloaded ends it; closed would mark it as installed",
        stage: Stage::DownloadOnly,
        until: Until::Said("deploymentBase", "downloaded/none"),
        judge: |sent| {
            sent.must("deploymentBase", "downloaded/none")?;
            sent.must_not("deploymentBase", "closed/success")
        },
        ..PLAIN
    },
    Case {
        name: "consent",
        what: "the operator asks for consent: given, or the device has no updates any more",
        stage: Stage::Consent,
        judge: |sent| {
            if sent.count("POST", "/confirmationBase/") == 0 {
                return Err(format!("no word on consent: {}", sent.story()));
            }
            success(sent)
        },
        ..PLAIN
    },
    Case {
        name: "no-timestamp",
        what: "a timestamp becomes the date of installation: better none than a wrong one",
        judge: |sent| {
            success(sent)?;
            let any = sent
                .reports()
                .iter()
                .any(|report| report.get("timestamp").is_some());
            if any {
                Err("a timestamp was sent".to_owned())
            } else {
                Ok(())
            }
        },
        ..PLAIN
    },
    Case {
        name: "no-refetch",
        what: "the details of an action that was closed are never read again: that reopens it",
        judge: |sent| {
            success(sent)?;
            match sent.reads_after_the_end() {
                0 => Ok(()),
                count => Err(format!("read {count} times after the end")),
            }
        },
        ..PLAIN
    },
    Case {
        name: "lost-answer",
        what: "the answer to the last report gets lost, and 410 comes next: told again, then dropped",
        mangle: |request, answer, _| {
            let text = String::from_utf8_lossy(&request.body);
            let last = request.path.ends_with("/feedback") && text.contains("\"closed\"");
            // The server has taken it, and says so once.
            if last && answer.status < 300 {
                plain(502, "")
            } else {
                answer
            }
        },
        until: Until::Sent("closed/success", 2),
        judge: |sent| {
            success(sent)?;
            if sent.reads_after_the_end() > 0 {
                return Err(format!("read after the end: {}", sent.story()));
            }
            match sent.sent_words("closed/success") {
                2 => Ok(()),
                count => Err(format!("told {count} times: {}", sent.story())),
            }
        },
        ..PLAIN
    },
    Case {
        name: "quota-429",
        what: "rows are used up (429): no more progress, but the end is told",
        setup: |setup| setup.rows_max = 3,
        ..PLAIN
    },
    Case {
        name: "quota-403",
        what: "rows are used up (403 before 0.10.0): the same, and no slow mode",
        setup: |setup| {
            setup.release = Release::V0_9_0;
            setup.rows_max = 3;
        },
        ..PLAIN
    },
    Case {
        name: "quota-messages",
        what: "the last report has more lines than the server takes: told with fewer",
        setup: |setup| setup.messages_max = 2,
        mangle: |request, mut answer, _| {
            if super::is_object(request)
                && let Some(byte) = answer.body.last_mut()
            {
                *byte ^= 1;
            }
            answer
        },
        until: Until::Said("deploymentBase", "closed/failure"),
        judge: |sent| sent.must("deploymentBase", "closed/failure"),
        ..PLAIN
    },
    Case {
        name: "quota-download",
        what: "rows are used up and a download-only action cannot be ended: closed would be a lie, and it is no flood",
        stage: Stage::DownloadOnly,
        setup: |setup| setup.rows_max = 3,
        until: Until::Seconds(15),
        judge: |sent| {
            sent.must_not("deploymentBase", "closed/success")?;
            match sent.sent_words("downloaded/none") {
                1..=8 => Ok(()),
                count => Err(format!("told {count} times: {}", sent.story())),
            }
        },
        ..PLAIN
    },
];
