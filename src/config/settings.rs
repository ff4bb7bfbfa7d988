//! The keys that pruning methods declare: taken out of the `[[prune]]` tables, whose other keys have a field each.
//!
//! A new key of a method needs no field here, nor a rule: its name, range and default are in the method's own file.

use super::axis::At;
use super::grammar;
use super::raw::RawExperiment;
use crate::prune::{Setting, SettingValue, settings};
use toml::de::{DeTable, DeValue};

/// The keys of one block, in the order of the methods.
type Given = Vec<(&'static Setting, At<SettingValue>)>;

/// Takes them out of every block. Types were checked before: what is of another type is not there any more.
pub(super) fn take(root: &mut DeTable<'_>) -> Vec<Given> {
    let Some(blocks) = root.get_mut("prune") else { return Vec::new() };
    let DeValue::Array(blocks) = blocks.get_mut() else { return Vec::new() };
    let given = blocks.iter_mut().map(|block| match block.get_mut() {
        DeValue::Table(block) => of_block(block),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => Given::new(),
    });
    given.collect()
}

fn of_block(block: &mut DeTable<'_>) -> Given {
    let given = settings().into_iter().filter_map(|(setting, _)| {
        let value = block.remove(setting.name)?;
        let number = match setting.default {
            SettingValue::Real(_) => SettingValue::Real(grammar::real(value.get_ref())?),
            SettingValue::Count(_) => SettingValue::Count(grammar::count(value.get_ref())?),
        };
        Some((setting, At { value: number, span: value.span() }))
    });
    given.collect()
}

/// Gives them to the blocks that they were taken from.
pub(super) fn give(settings: Vec<Given>, raw: &mut RawExperiment) {
    let blocks = raw.prune.iter_mut().flatten();
    blocks.zip(settings).for_each(|(block, given)| block.value.settings = given);
}
