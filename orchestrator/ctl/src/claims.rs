//! `coxctl claims`: who may change what on a device with several clients.

use api::messages::ours::{Claim, ClaimBody};

use crate::cli::ClaimsCommand;
use crate::commands::Context;
use crate::failure::Failure;
use crate::table::{Table, cell, long, number, text};
use crate::terminal::{Look, clean};
use crate::units;

pub(crate) async fn claims(
    context: &Context,
    command: Option<ClaimsCommand>,
) -> Result<(), Failure> {
    let client = &context.client;
    match command {
        None => context.show(&client.claims().await?, |claims| {
            table(claims, &context.look)
        }),
        Some(ClaimsCommand::Take {
            parts,
            priority,
            lease,
        }) => {
            let wanted = ClaimBody {
                parts: parts.into_iter().collect(),
                priority,
                lease_s: lease,
            };
            let claim = client.claim(&wanted).await?;
            context.show(&claim, |claim| sentence(claim, "holds"))
        }
        Some(ClaimsCommand::Renew { id, lease }) => {
            let claim = client.renew_claim(id, lease).await?;
            context.show(&claim, |claim| sentence(claim, "holds again"))
        }
        Some(ClaimsCommand::Release { id }) => {
            client.release_claim(id).await?;
            context.done(&format!("released claim {id}"))
        }
    }
}

fn parts(claim: &Claim) -> String {
    let parts: Vec<_> = claim.parts.iter().map(ToString::to_string).collect();
    parts.join(" ")
}

fn sentence(claim: &Claim, holds: &str) -> String {
    let mut text = format!(
        "claim {} of {} on {} {holds} for {}\n",
        claim.id,
        clean(&claim.client.to_string()),
        clean(&parts(claim)),
        units::seconds(claim.left_s.max(1)),
    );
    if let Some(by) = claim.overruled_by {
        text.push_str(&format!("claim {by} counts before it where both overlap\n"));
    }
    text
}

fn table(claims: &[Claim], look: &Look) -> String {
    let mut table = Table::new(&[
        number("ID"),
        text("CLIENT"),
        number("PRIORITY"),
        number("LEFT"),
        text("GIVES WAY TO"),
        long("PARTS"),
    ]);
    for claim in claims {
        let by = claim.overruled_by.map(|by| format!("claim {by}"));
        table.row([
            cell(claim.id),
            cell(&claim.client),
            cell(claim.priority),
            cell(units::seconds(claim.left_s)),
            cell(by.unwrap_or_default()),
            cell(parts(claim)),
        ]);
    }
    if table.is_empty() {
        return "no claims\n".to_owned();
    }
    table.render(look)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Colour;

    fn claim(id: u64, client: &str, parts: &[&str], overruled_by: Option<u64>) -> Claim {
        Claim {
            id,
            client: client.parse().unwrap(),
            parts: parts.iter().map(|part| part.parse().unwrap()).collect(),
            priority: 100,
            lease_s: 300,
            left_s: 125,
            until: "2026-11-21T10:20:30Z".to_owned(),
            overruled_by,
        }
    }

    #[test]
    fn tables_and_sentences() {
        let look = Look::new(Colour::Never);
        assert_eq!(table(&[], &look), "no claims\n");
        let shown = table(
            &[
                claim(1, "container:hawkbit", &["*"], Some(2)),
                claim(2, "host", &["bsp", "container:web"], None),
            ],
            &look,
        );
        expect_test::expect![[r#"
            ID  CLIENT             PRIORITY   LEFT  GIVES WAY TO  PARTS
             1  container:hawkbit       100  2m05s  claim 2       *
             2  host                    100  2m05s                bsp container:web
        "#]]
        .assert_eq(&shown);
        assert_eq!(
            sentence(&claim(1, "host:x", &["*"], Some(2)), "holds"),
            "claim 1 of host:x on * holds for 2m05s\nclaim 2 counts before it where both overlap\n"
        );
    }
}
