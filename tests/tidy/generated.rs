//! Pages that are generated from tables stay fresh. `UPDATE_EXPECT=1 cargo test -p acceptance --test tidy` writes them anew.

use std::fmt::Write as _;

use daemon::config::{Kind, SETTINGS};
use expect_test::expect_file;

#[test]
fn the_page_of_settings_is_fresh() {
    let mut page = String::from(
        "# Settings\n\n\
         Generated from `orchestrator/daemon/src/config/table.rs`; do not edit.\n\n\
         Layers, lowest first: default, file (`/etc/coxswain/coxswain.toml`, or `--config FILE`), kernel command line\n\
         (`coxswain.name=value`), environment (`COXSWAIN_NAME`), command line (`--name value`), user metadata (only where the table says so;\n\
         key `coxswain.name` or the name itself). `coxctl config` shows each value and where it came from.\n\n\
         | setting | default | accepts | user metadata | Pantavisor's key | meaning |\n|---|---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let accepts = match setting.kind {
            Kind::Text => "text".to_owned(),
            Kind::Path => "absolute path".to_owned(),
            Kind::Number(from, to) => format!("{from} to {to}"),
            Kind::Duration(from, to) => format!("time, {from}s to {to}s"),
            Kind::Flag => "true, false".to_owned(),
            Kind::Word(words) => words.join(", "),
            Kind::Device => "LABEL=, UUID=, PARTLABEL=, PARTUUID= or a path below /dev".to_owned(),
        };
        let pantavisor = setting
            .pantavisor()
            .map(|key| format!("`{key}`"))
            .unwrap_or_default();
        writeln!(
            page,
            "| `{}` | `{}` | {accepts} | {} | {pantavisor} | {} |",
            setting.name,
            setting.default,
            if setting.from_meta { "yes" } else { "no" },
            setting.doc,
        )
        .expect("a string takes every text");
    }
    expect_file!["../../orchestrator/daemon/settings.md"].assert_eq(&page);
}
