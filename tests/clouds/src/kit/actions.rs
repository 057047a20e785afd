//! Cases about the life of an action: cancels, windows, consent, quotas, reports.

use serde_json::json;

use super::{Case, OPENS_AFTER, PLAIN, Stage, Until, is_root, no_object, plain, spoiled, success};
use crate::hawkbit::Release;

/// An action that is cancelled before it has ended.
const CANCELLED: Case = Case {
    until: Until::Said("cancelAction", "closed/success"),
    judge: |sent| {
        sent.must("cancelAction", "closed/success")?;
        sent.must_not("deploymentBase", "closed/success")?;
        sent.must_not("deploymentBase", "closed/failure")
    },
    ..PLAIN
};

/// The rows of the action are used up after its first report.
const QUOTA: Case = Case {
    setup: |setup| setup.rows_max = 3,
    judge: |sent| {
        success(sent)?;
        match sent.refused() {
            0..=3 => Ok(()),
            count => Err(format!("{count} refused reports: {}", sent.story())),
        }
    },
    ..PLAIN
};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "cancel-closed",
        what: "a cancel hides the next deployment until it is answered with closed",
        stage: Stage::Superseded,
        judge: |sent| {
            success(sent)?;
            match sent.cancelled().len() {
                2 => Ok(()),
                count => Err(format!("{count} of 2 cancels answered: {}", sent.story())),
            }
        },
        ..PLAIN
    },
    Case {
        name: "cancel-other",
        what: "another action is cancelled than the one at work (several at once, before 0.10.0): answered, and the work goes on",
        mangle: |request, answer, scene| {
            let path = &request.path;
            let is_other = path.contains("/cancelAction/999");
            if is_root(request) && scene.same == 1 {
                let host = request.header("host").unwrap_or_default();
                let href = format!("http://{host}{path}/cancelAction/999");
                let root = json!({
                    "config": {"polling": {"sleep": "00:00:01"}},
                    "_links": {"cancelAction": {"href": href}},
                });
                plain(200, &root.to_string())
            } else if is_other && request.method == "GET" {
                plain(200, r#"{"id":"999","cancelAction":{"stopId":"999"}}"#)
            } else if is_other {
                plain(200, "")
            } else if scene.same == 0 {
                // So that it is at work when the cancel comes.
                no_object(answer, request, 503)
            } else {
                answer
            }
        },
        judge: |sent| {
            success(sent)?;
            match sent.cancelled().contains("999") {
                true => Ok(()),
                false => Err(format!("the cancel is not answered: {}", sent.story())),
            }
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
        ..CANCELLED
    },
    Case {
        name: "cancel-stuck",
        what: "a file that is tried again and again can still be cancelled",
        stage: Stage::CancelledLater,
        mangle: |request, answer, _| no_object(answer, request, 503),
        ..CANCELLED
    },
    Case {
        name: "window-lapsed",
        what: "a window that is over cancels the action at the very poll",
        stage: Stage::Lapsed,
        ..CANCELLED
    },
    Case {
        name: "window-opens",
        what: "and when the window opens: installed, and not a moment earlier",
        stage: Stage::Opens,
        judge: |sent| {
            success(sent)?;
            // A schedule has whole seconds.
            let opens = OPENS_AFTER.as_millis() - 1000;
            match sent.taken_at("closed/success") {
                Some(at) if at >= opens => Ok(()),
                _ => Err(format!("closed before the window opened: {}", sent.story())),
            }
        },
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
        what: "the details of an action that was closed are never read again, here or in any case: that reopens it",
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
        ..QUOTA
    },
    Case {
        name: "quota-403",
        what: "rows are used up (403 before 0.10.0): the same, and no slow mode",
        setup: |setup| {
            setup.release = Release::V0_9_0;
            setup.rows_max = 3;
        },
        ..QUOTA
    },
    Case {
        name: "quota-messages",
        what: "the last report has more lines than the server takes: told with fewer",
        setup: |setup| setup.messages_max = 2,
        mangle: |request, answer, _| spoiled(answer, request),
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
