//! `coxctl objects` and `coxctl uploads`: what the store holds, and what is on its way there.

use std::io::Write as _;

use api::messages::ours::Upload;
use api::messages::pantavisor::Object;

use crate::cli::ObjectsCommand;
use crate::commands::Context;
use crate::failure::Failure;
use crate::table::{Table, cell, long, number, text};
use crate::terminal::{Look, print_bytes};
use crate::units;

/// `coxctl objects`.
pub(crate) async fn objects(
    context: &Context,
    command: Option<ObjectsCommand>,
) -> Result<(), Failure> {
    match command {
        None => {
            let list = context.client.objects().await?;
            context.show(&list, |list| objects_table(list, &context.look))
        }
        Some(ObjectsCommand::Rm { object }) => {
            context.client.delete_object(&object).await?;
            context.done(&format!("removed {object}"))
        }
        Some(ObjectsCommand::Get { object, output }) => {
            let mut download = context.client.download(&object, 0).await?;
            match output {
                None => {
                    while let Some(piece) = download.next().await? {
                        print_bytes(&piece)?;
                    }
                }
                Some(path) => {
                    let failed = |error| Failure::file("write", &path, &error);
                    let mut file = std::fs::File::create(&path).map_err(failed)?;
                    while let Some(piece) = download.next().await? {
                        file.write_all(&piece).map_err(failed)?;
                    }
                    file.sync_all().map_err(failed)?;
                }
            }
            Ok(())
        }
    }
}

/// `coxctl uploads`.
pub(crate) async fn uploads(context: &Context) -> Result<(), Failure> {
    context.show(&context.client.uploads().await?, |list| {
        uploads_table(list, &context.look)
    })
}

fn objects_table(objects: &[Object], look: &Look) -> String {
    let mut table = Table::new(&[long("SHA256"), number("SIZE")]);
    let mut total: u64 = 0;
    for object in objects {
        let size = object.size.parse::<u64>();
        total = total.saturating_add(*size.as_ref().unwrap_or(&0));
        table.row([
            cell(object.sha256),
            cell(size.map_or_else(|_| object.size.clone(), units::bytes)),
        ]);
    }
    if table.is_empty() {
        return "no objects\n".to_owned();
    }
    format!(
        "{}\n{}, {}\n",
        table.render(look),
        units::count(objects.len(), "object"),
        units::bytes(total)
    )
}

fn uploads_table(uploads: &[Upload], look: &Look) -> String {
    let mut table = Table::new(&[
        long("SHA256"),
        number("THERE"),
        number("OF"),
        text("STATUS"),
    ]);
    for upload in uploads {
        let status = match upload.active {
            true => "under way",
            false => "can be resumed",
        };
        table.row([
            cell(upload.sha256),
            cell(units::bytes(upload.bytes)),
            cell(upload.expected_bytes.map_or_else(String::new, units::bytes)),
            cell(status),
        ]);
    }
    if table.is_empty() {
        return "no uploads\n".to_owned();
    }
    table.render(look)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn tables() {
        let look = Look {
            width: Some(100),
            colour: false,
        };
        let list: Vec<Object> = serde_json::from_str(
            r#"[{"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","size":"1300000"},
                {"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":"odd"}]"#,
        )
        .unwrap();
        expect![[r#"
            SHA256                                                               SIZE
            9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  1.2 MiB
            e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855      odd

            2 objects, 1.2 MiB
        "#]]
        .assert_eq(&objects_table(&list, &look));
        assert_eq!(objects_table(&[], &look), "no objects\n");
        let list: Vec<Upload> = serde_json::from_str(
            r#"[{"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","bytes":1300000,
                 "expected_bytes":null,"active":false},
                {"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","bytes":0,
                 "expected_bytes":5000000,"active":true}]"#,
        )
        .unwrap();
        expect![[r#"
            SHA256                                                              THERE       OF  STATUS
            9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  1.2 MiB           can be resumed
            e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855      0 B  4.7 MiB  under way
        "#]]
        .assert_eq(&uploads_table(&list, &look));
        assert_eq!(uploads_table(&[], &look), "no uploads\n");
    }
}
