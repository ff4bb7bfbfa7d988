//! How likely continuations are: what zero-shot tasks ask of a model.
//!
//! ```text
//!   item ─ requests: input [.. Question .. Answer :  the]   targets [the leaves]
//!
//!   inputs of an item that are equal run once; those that begin alike share what they begin with:
//!     root   what nearly all items begin with (MMLU's examples), run once and kept
//!     stem   what the choices of an item begin with                 ┐ a pass of about TOKENS tokens,
//!     twig   the rest of a choice                                   ┘ packed end to end: nothing is padded
//!   logits are computed at the rows that predict a target, and nowhere else
//! ```
//! Log-softmax and sums are in f64 of f32 logits whatever the model's dtype; lm-evaluation-harness rounds both to it.
//! Which items share a pass follows from the items alone, so that results depend on no other task.

use super::forward::{ForwardError, PASS_TOKENS, here, likely};
use crate::execute::{Likely, SparseBackend, Target};
use crate::model::{Batch, Decoder, KvCache, Node, Tree};
use burn::tensor::{DType, Int, Tensor, TensorData};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fewer tokens than this are not worth a root.
const ROOT: usize = 16;

/// What is asked for one choice.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the model sees.
    pub input: &'a [u32],
    /// What is scored: at least one, at most as many as the input has. The last input token predicts the last one.
    pub targets: &'a [u32],
}

/// What came out for one choice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scored {
    /// The sum over the targets of the logarithm of how likely each is, given all before it.
    pub log_likelihood: f64,
    /// Whether every target is the most likely token at its place, the first of equals.
    pub greedy: bool,
}

/// Scores all requests of all items; `done` is called with the number of items that are done.
///
/// # Errors
/// When an input does not fit the model, or a logit is not finite: `NotFinite` names the item, from 0.
pub fn score<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    items: &[Vec<Asked<'_>>],
    mut done: impl FnMut(usize),
) -> Result<Vec<Vec<Scored>>, ForwardError> {
    let longest = items.iter().flatten().map(|asked| asked.input.len()).max().unwrap_or(0);
    let shares = decoder.shares_beginnings(longest);
    let root = if shares { common_root(items) } else { &[] };
    let mut plans: Vec<ItemPlan<'_>> =
        items.iter().enumerate().map(|(index, item)| ItemPlan::new(index, item, root, shares)).collect();
    // Those behind the root first, longest first: what does not fit into memory fails at once.
    plans.sort_by_key(|plan| (plan.root == 0, std::cmp::Reverse(plan.tokens())));
    let root = match plans.first().filter(|plan| plan.root > 0) {
        Some(plan) => Some(run_root(decoder, &items[plan.index][0].input[..plan.root])?),
        None => None,
    };
    let mut scores: Vec<Vec<Scored>> = items.iter().map(|item| vec![Scored::default(); item.len()]).collect();
    let mut finished = 0;
    for part in passes(&plans, here::<B>(PASS_TOKENS)) {
        let root = root.as_ref().filter(|_| part[0].root > 0);
        score_pass(decoder, items, part, root, &mut scores)?;
        finished += part.len();
        done(finished);
    }
    Ok(scores)
}

/// Tokens that most items begin with, where that saves something.
fn common_root<'a>(items: &[Vec<Asked<'a>>]) -> &'a [u32] {
    let Some(base) = items.get(items.len() / 2).and_then(|item| item.first()) else { return &[] };
    let shared = |item: &Vec<Asked<'_>>| item.iter().map(|asked| shared_front(base.input, asked)).min().unwrap_or(0);
    let mut lengths: Vec<usize> = items.iter().map(shared).collect();
    lengths.sort_unstable_by_key(|length| std::cmp::Reverse(*length));
    // Of n + 1 items that begin with it, n are spared what they share.
    let best = lengths.iter().enumerate().max_by_key(|(others, length)| *others * **length);
    best.filter(|(others, length)| *others > 0 && **length >= ROOT).map_or(&[], |(_, length)| &base.input[..*length])
}

/// Tokens that a root may take of a request: those before the first row that is scored.
fn shared_front(base: &[u32], asked: &Asked<'_>) -> usize {
    lcp(base, asked.input).min(asked.input.len() - asked.targets.len())
}

fn lcp(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How an item is run.
struct ItemPlan<'a> {
    index: usize,
    /// Tokens that the root has of it; all or none of the root's.
    root: usize,
    /// What its sequences begin with, behind the root.
    stem: &'a [u32],
    /// Its different inputs, each behind root and stem.
    rests: Vec<&'a [u32]>,
    /// Which of them each request is.
    of_request: Vec<usize>,
}

impl<'a> ItemPlan<'a> {
    fn new(index: usize, item: &[Asked<'a>], root: &[u32], shares: bool) -> Self {
        let mut inputs: Vec<&'a [u32]> = Vec::with_capacity(item.len());
        let mut of_request = Vec::with_capacity(item.len());
        for asked in item {
            let place = inputs.iter().position(|input| *input == asked.input).unwrap_or(inputs.len());
            if place == inputs.len() {
                inputs.push(asked.input);
            }
            of_request.push(place);
        }
        let behind_root = !root.is_empty() && item.iter().all(|asked| shared_front(root, asked) == root.len());
        let root = if behind_root { root.len() } else { 0 };
        let first = inputs.first().map_or(&[][..], |input| &input[root..]);
        let stem = match (inputs.len(), shares) {
            (1, _) => first.len(),
            (_, true) => inputs.iter().map(|input| lcp(first, &input[root..])).min().unwrap_or(0),
            (_, false) => 0,
        };
        let rests = inputs.into_iter().map(|input| &input[root + stem..]).collect();
        Self { index, root, stem: &first[..stem], rests, of_request }
    }

    fn tokens(&self) -> usize {
        self.stem.len() + self.rests.iter().map(|rest| rest.len()).sum::<usize>()
    }
}

/// Items that run together, in order: either all behind the root or none.
fn passes<'p, 'a>(plans: &'p [ItemPlan<'a>], most: usize) -> impl Iterator<Item = &'p [ItemPlan<'a>]> {
    let mut rest = plans;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|plan| {
            tokens += plan.tokens();
            tokens <= most && (plan.root > 0) == (first.root > 0)
        });
        let (part, behind) = rest.split_at(fitting.count().max(1));
        rest = behind;
        Some(part)
    })
}

fn run_root<B: SparseBackend>(decoder: &mut Decoder<B>, ids: &[u32]) -> Result<Arc<KvCache<B>>, ForwardError> {
    let mut cache = KvCache::new(decoder.architecture(), 1, ids.len());
    decoder.extend(&Batch::new([ids]), &mut cache)?;
    Ok(Arc::new(cache))
}

/// A target that a row predicts: of which item and request, and the how manieth.
struct Aim {
    item: usize,
    request: usize,
    place: usize,
    id: u32,
}

fn score_pass<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    items: &[Vec<Asked<'_>>],
    plans: &[ItemPlan<'_>],
    root: Option<&Arc<KvCache<B>>>,
    scores: &mut [Vec<Scored>],
) -> Result<(), ForwardError> {
    let (tree, starts) = grown(plans);
    let hidden = match (&tree.waves[..], root) {
        ([nodes], None) => decoder.hidden(&Batch::new(nodes.iter().map(|node| node.ids.as_slice())))?,
        _ => decoder.hidden_of_tree(&tree, root)?,
    };
    let mut aims: BTreeMap<usize, Vec<Aim>> = BTreeMap::new();
    for (plan, starts) in plans.iter().zip(&starts) {
        for (request, asked) in items[plan.index].iter().enumerate() {
            let first = asked.input.len() - asked.targets.len();
            for (place, &id) in asked.targets.iter().enumerate() {
                let row = starts.row(plan, plan.of_request[request], first + place);
                aims.entry(row).or_default().push(Aim { item: plan.index, request, place, id });
            }
        }
    }
    let rows = TensorData::new(aims.keys().map(|row| *row as i32).collect::<Vec<i32>>(), [aims.len()]);
    let rows = Tensor::<B, 1, Int>::from_data(rows, (decoder.device(), DType::I32));
    let of_row = |(row, aims): (usize, Vec<Aim>)| aims.into_iter().map(move |aim| (row, aim));
    let (targets, aims): (Vec<Target>, Vec<Aim>) =
        aims.into_values().enumerate().flat_map(of_row).map(|(row, aim)| (Target { row, id: aim.id }, aim)).unzip();
    let found = likely(decoder, hidden.select(0, rows), &targets)?;
    // By item and request: place, log-likelihood, whether no token is likelier.
    let mut losses: BTreeMap<_, Vec<(usize, f64, bool)>> = BTreeMap::new();
    for (aim, found) in aims.iter().zip(found) {
        let Likely { log, first } = found.ok_or(ForwardError::NotFinite { token: aim.item })?;
        losses.entry((aim.item, aim.request)).or_default().push((aim.place, log, first));
    }
    for ((item, request), mut targets) in losses {
        // In order, so that equal choices have equal sums.
        targets.sort_unstable_by_key(|(place, ..)| *place);
        let log_likelihood = targets.iter().map(|(_, loss, _)| loss).sum();
        scores[item][request] = Scored { log_likelihood, greedy: targets.iter().all(|(.., greedy)| *greedy) };
    }
    Ok(())
}

/// Where the nodes of an item begin in a pass.
struct Starts {
    stem: usize,
    rests: Vec<usize>,
}

impl Starts {
    /// The row of an input's token.
    fn row(&self, plan: &ItemPlan<'_>, rest: usize, position: usize) -> usize {
        let behind = position - plan.root;
        if behind < plan.stem.len() { self.stem + behind } else { self.rests[rest] + behind - plan.stem.len() }
    }
}

/// The nodes of a pass, and where each item's begin.
fn grown(plans: &[ItemPlan<'_>]) -> (Tree, Vec<Starts>) {
    let (mut stems, mut twigs) = (Vec::new(), Vec::new());
    let (mut stem_rows, mut twig_rows) = (0, 0);
    let mut starts = Vec::with_capacity(plans.len());
    for plan in plans {
        let mut of_item = Starts { stem: stem_rows, rests: Vec::with_capacity(plan.rests.len()) };
        let above = (!plan.stem.is_empty()).then_some(stems.len());
        if above.is_some() {
            stems.push(Node { above: None, ids: plan.stem.to_vec() });
            stem_rows += plan.stem.len();
        }
        for rest in &plan.rests {
            // What has nothing above it is a stem itself.
            let (nodes, rows) =
                if above.is_some() { (&mut twigs, &mut twig_rows) } else { (&mut stems, &mut stem_rows) };
            of_item.rests.push(*rows);
            if !rest.is_empty() {
                nodes.push(Node { above, ids: rest.to_vec() });
                *rows += rest.len();
            }
        }
        starts.push(of_item);
    }
    for (plan, starts) in plans.iter().zip(&mut starts) {
        if !plan.stem.is_empty() {
            // Twigs come behind all stems.
            starts.rests.iter_mut().for_each(|row| *row += stem_rows);
        }
    }
    let waves = if twigs.is_empty() { vec![stems] } else { vec![stems, twigs] };
    (Tree { waves }, starts)
}
