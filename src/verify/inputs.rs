//! Whether what is read now is what was read then: the experiment file, its seeds, models and texts.

use super::record::{Finding, Stranger};
use crate::plan::Planned;
use crate::record::{InputRecord, Manifest, PlanEntry, Record, Store, sha256};
use crate::run::Prepared;
use std::path::Path;

/// What is not as the manifest says.
pub(super) fn findings(store: &Store, manifest: &Manifest, prepared: &Prepared) -> Vec<Finding> {
    let mut findings = Vec::new();
    let file = store.bytes(Path::new("experiment.toml")).unwrap_or_default();
    if sha256(&file) != manifest.experiment_sha256 {
        findings.push(Finding::file("experiment.toml", "is not the file that the manifest is about"));
    }
    if prepared.experiment.seeds != manifest.seeds {
        let (then, now) = (&manifest.seeds, &prepared.experiment.seeds);
        findings.push(Finding::file("seed", &format!("the manifest has {then:?}, the experiment {now:?}")));
    }
    let now = prepared.inputs();
    findings.extend(manifest.inputs.iter().filter_map(|then| input(then, &now)));
    findings
}

/// What is wrong with an input; it may be called otherwise by now.
fn input(then: &InputRecord, now: &[InputRecord]) -> Option<Finding> {
    if now.iter().any(|now| (&now.file, &now.sha256) == (&then.file, &then.sha256)) {
        return None;
    }
    let name = match &then.file {
        Some(file) => format!("{} {file}", then.source),
        None => then.source.clone(),
    };
    let same = now.iter().find(|now| (&now.source, &now.file) == (&then.source, &then.file));
    Some(match same {
        Some(now) => Finding {
            what: name,
            problem: "is another file than the one that was read".into(),
            recorded: Some(then.sha256.clone()),
            found: Some(now.sha256.clone()),
        },
        None => Finding {
            what: name,
            problem: "is not among what the experiment reads".into(),
            recorded: Some(then.sha256.clone()),
            found: None,
        },
    })
}

/// The settings that only say where and how something was timed.
const OF_THE_PLACE: [&str; 3] = ["device", "threads", "kernels"];

/// What there is to say of a cell of the folder that the experiment does not give here.
pub(super) fn stranger(
    entry: &PlanEntry,
    record: &Result<Option<Record>, String>,
    planned: &[Planned],
) -> Option<Stranger> {
    let record = match record {
        Ok(record) => record.as_ref()?,
        Err(_) => return Some(Stranger::new(entry, "its file can't be believed".into(), false)),
    };
    let same = planned.iter().find(|planned| planned.task == entry.cell);
    let changes = same.map_or_else(Vec::new, |planned| planned.inputs.changes_from(&record.inputs));
    let elsewhere = |change: &String| OF_THE_PLACE.iter().any(|name| change.starts_with(&format!("{name} ")));
    Some(match changes.is_empty() {
        true => Stranger::new(entry, "the experiment has no such cell".into(), false),
        false if changes.iter().all(elsewhere) => {
            Stranger::new(entry, format!("not comparable: different device ({})", changes.join(", ")), true)
        }
        false => Stranger::new(entry, format!("it read something else: {}", changes.join(", ")), false),
    })
}
