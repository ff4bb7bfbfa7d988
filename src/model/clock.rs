//! Where a forward pass spends its time: by kind of work, or step by step.
//!
//! ```text
//!   Kinds    Linears, Attention                     all else runs between, untimed
//!   Steps    every step, by a name and a kernel     `self_attn.q_proj` csr-avx512-rows · 32 calls · time
//!   Names    nothing is timed: whoever launches for a step knows its name
//! ```
//! Whoever is timed is waited for before and after, which makes the whole slower. Knows no network.

use crate::execute::stage;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The kinds of work that a forward pass is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Matrix products, dense or sparse, the output head's included.
    Linears,
    /// Scores, softmax and sums of values, with rotation and the cache; not the projections.
    Attention,
    /// Norms, with the sums before them.
    Norms,
    /// Nonlinearities.
    Activations,
    /// Rows of tables of tokens and positions.
    Tables,
    /// The arg-max of the logits.
    Choice,
}

/// What a step of a pass is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub name: String,
    pub kernel: String,
}

impl Step {
    /// A step that has one kernel at most.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), kernel: String::new() }
    }
}

/// Time spent in the parts of forward passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectionTimes {
    /// In matrix products, dense or sparse, the output head's included.
    pub linears: Duration,
    /// In the attention between the projections.
    pub attention: Duration,
}

/// Time spent in the steps of one name and kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// What it is, without the number of its block: `self_attn.q_proj`.
    pub name: String,
    /// Which code path ran; empty where there is one.
    pub kernel: String,
    /// How often.
    pub calls: usize,
    /// All of them.
    pub time: Duration,
}

/// Adds up time of work that the device has finished.
#[derive(Debug)]
pub(super) enum Clock {
    /// Of linears and attention.
    Kinds([AtomicU64; 2]),
    /// Of every step, in the order in which they first ran.
    Steps(Mutex<Vec<StepTime>>),
    /// Of nothing: steps are named.
    Names,
}

impl Clock {
    /// Of linears and attention.
    pub fn of_kinds() -> Self {
        Self::Kinds(Default::default())
    }

    /// Of every step.
    pub fn of_steps() -> Self {
        Self::Steps(Mutex::default())
    }

    /// Runs `work` between two calls of `sync`, which waits for the device, and counts its time if this is looked at.
    pub fn time<T>(
        &self,
        section: Section,
        step: impl FnOnce() -> Step,
        sync: impl Fn(),
        work: impl FnOnce() -> T,
    ) -> T {
        if let Self::Names = self {
            return stage::within(step().name, work);
        }
        if !self.looks_at(section) {
            return work();
        }
        sync();
        let start = Instant::now();
        let result = work();
        sync();
        let time = start.elapsed();
        match self {
            Self::Kinds(nanos) => {
                let nanos = &nanos[usize::from(section == Section::Attention)];
                nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            Self::Names => {}
            Self::Steps(steps) => add(&mut steps.lock().unwrap_or_else(PoisonError::into_inner), step(), time),
        }
        result
    }

    fn looks_at(&self, section: Section) -> bool {
        match (self, section) {
            (Self::Kinds(_), Section::Linears | Section::Attention) | (Self::Steps(_), _) => true,
            (Self::Kinds(_), Section::Norms | Section::Activations | Section::Tables | Section::Choice)
            | (Self::Names, _) => false,
        }
    }

    /// The times of kinds since the last call.
    pub fn take(&self) -> SectionTimes {
        match self {
            Self::Kinds(nanos) => {
                let [linears, attention] =
                    nanos.each_ref().map(|nanos| Duration::from_nanos(nanos.swap(0, Ordering::Relaxed)));
                SectionTimes { linears, attention }
            }
            Self::Steps(_) | Self::Names => SectionTimes::default(),
        }
    }

    /// The times of steps since the last call.
    pub fn take_steps(&self) -> Vec<StepTime> {
        match self {
            Self::Kinds(_) | Self::Names => Vec::new(),
            Self::Steps(steps) => std::mem::take(&mut steps.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

fn add(steps: &mut Vec<StepTime>, Step { name, kernel }: Step, time: Duration) {
    match steps.iter_mut().find(|known| known.name == name && known.kernel == kernel) {
        Some(known) => (known.calls, known.time) = (known.calls + 1, known.time + time),
        None => steps.push(StepTime { name, kernel, calls: 1, time }),
    }
}

/// The name of a module without the number of its block: `model.layers.3.self_attn.q_proj` is `self_attn.q_proj`; other
/// numbers are `*`, and what is outside of blocks has its last word.
pub(super) fn role(name: &str) -> String {
    let is_number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let words: Vec<&str> = name.split('.').collect();
    match words.iter().position(&is_number) {
        Some(block) if block + 1 < words.len() => {
            let role: Vec<&str> =
                words[block + 1..].iter().map(|word| if is_number(word) { "*" } else { *word }).collect();
            role.join(".")
        }
        Some(_) | None => words.last().copied().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_names_without_the_block() {
        for (name, expected) in [
            ("model.layers.31.self_attn.q_proj", "self_attn.q_proj"),
            ("transformer.h.0.mlp.c_fc", "mlp.c_fc"),
            ("model.layers.1.mlp.experts.12.up_proj", "mlp.experts.*.up_proj"),
            ("model.norm", "norm"),
            ("lm_head", "lm_head"),
            ("odd.7", "7"),
        ] {
            assert_eq!(role(name), expected);
        }
    }

    #[test]
    fn a_step_is_named_for_those_who_launch() {
        let names = Clock::Names;
        let found = names.time(Section::Norms, || Step::named("norm"), || panic!("nobody waits"), stage::current);
        assert_eq!((found.as_str(), stage::current().as_str()), ("norm", ""));
        assert_eq!((names.take(), names.take_steps()), Default::default());
    }

    #[test]
    fn a_clock_looks_at_kinds_or_at_steps() {
        let wait = || std::thread::sleep(Duration::from_millis(2));
        let step = |name: &str| Step { name: name.into(), kernel: "k".into() };
        let (kinds, steps) = (Clock::of_kinds(), Clock::of_steps());
        for clock in [&kinds, &steps] {
            assert_eq!(clock.time(Section::Linears, || step("q"), || (), || (wait(), 7).1), 7);
            clock.time(Section::Norms, || Step::named("norm"), || (), wait);
            clock.time(Section::Linears, || step("q"), || (), wait);
        }
        let SectionTimes { linears, attention } = kinds.take();
        assert!(linears >= Duration::from_millis(4) && attention.is_zero());
        assert_eq!((kinds.take(), kinds.take_steps(), steps.take()), Default::default());
        let found = steps.take_steps();
        let named: Vec<(&str, &str, usize)> =
            found.iter().map(|step| (step.name.as_str(), step.kernel.as_str(), step.calls)).collect();
        assert_eq!(named, [("q", "k", 2), ("norm", "", 1)]);
        assert!(found[0].time >= Duration::from_millis(4) && steps.take_steps().is_empty());
    }
}
