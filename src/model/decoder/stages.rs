//! A pass in pieces: what calibration needs to see the inputs of linears, and to change weights on the way.
//!
//! ```text
//!   tokens ── begin ──> Activations ── Entry ── Block(0) ── Block(1) ── .. ── Exit
//!                                         each: run whole, or up to what its last linear reads;
//!                                               every distinct input of linears is shown once
//! ```

use super::super::architecture::{Architecture, Gated, Mlp, Projections};
use super::super::cache::KvBlock;
use super::{At, Batch, Decoder, DecoderError, Residuals, Rotaries, See};
use crate::execute::SparseBackend;
use crate::execute::decode::{Places, Span};
use burn::tensor::Tensor;

/// A piece of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From the rows of the token table to what the first block reads.
    Entry,
    /// A block.
    Block(usize),
    /// After the last block, up to what the head reads.
    Exit,
}

/// What some sequences are between two stages.
#[derive(Clone, Debug)]
pub struct Activations<B: SparseBackend> {
    places: Places<B>,
    /// How its sequences are rotated: those of another batch may be otherwise.
    rotaries: Rotaries<B>,
    x: Tensor<B, 2>,
}

impl<B: SparseBackend> Activations<B> {
    /// The numbers, `[tokens, width]`.
    pub fn tensor(&self) -> &Tensor<B, 2> {
        &self.x
    }
}

impl Architecture {
    /// The pieces of a pass, in order.
    pub fn stages(&self) -> impl Iterator<Item = Stage> + use<> {
        let blocks = (0..self.blocks.len()).map(Stage::Block);
        std::iter::once(Stage::Entry).chain(blocks).chain(std::iter::once(Stage::Exit))
    }

    /// The linears of a stage in the order in which they run; those that read the same input together.
    pub fn linears_of(&self, stage: Stage) -> Vec<Vec<usize>> {
        match stage {
            Stage::Entry => self.project_in.map(|project| vec![project]).into_iter().collect(),
            Stage::Block(index) => {
                let block = &self.blocks[index];
                let projections = match block.projections {
                    Projections::Separate { q, k, v } => vec![q, k, v],
                    Projections::PerHead(fused) | Projections::Stacked(fused) => vec![fused],
                };
                let gated = |&Gated { gate, up, down }: &Gated| vec![vec![gate, up], vec![down]];
                let mlp = match &block.mlp {
                    Mlp::Plain { up, down } => vec![vec![*up], vec![*down]],
                    Mlp::Gated(layer) => gated(layer),
                    Mlp::Fused { gate_up, down } => vec![vec![*gate_up], vec![*down]],
                    Mlp::Experts(experts) => experts.experts.iter().flat_map(gated).collect(),
                };
                [vec![projections, vec![block.output]], mlp].concat()
            }
            Stage::Exit => {
                let project = self.project_out.map(|project| vec![project]);
                project.into_iter().chain([vec![self.head]]).collect()
            }
        }
    }
}

impl<B: SparseBackend> Decoder<B> {
    /// The rows of the token table: what [`Stage::Entry`] reads.
    ///
    /// # Errors
    /// When a sequence is too long or a token unknown.
    pub fn begin(&mut self, batch: &Batch) -> Result<Activations<B>, DecoderError> {
        let spans: Vec<Span> = batch.spans();
        self.check(batch, &spans)?;
        self.prepare_rotary(&batch.lengths, batch.lengths.iter().copied().max().unwrap_or(0));
        let places = Places::new(&batch.ids, spans, self.architecture.attention.kv_heads, &self.device);
        let x = self.look_up(&places);
        Ok(Activations { places, rotaries: self.rotaries.clone(), x })
    }

    /// Runs a stage; `see` is shown what linears read, once for each group of [`Architecture::linears_of`].
    ///
    /// # Panics
    /// When the architecture has no such block.
    pub fn run_stage(
        &self,
        stage: Stage,
        Activations { places, rotaries, x }: Activations<B>,
        mut see: impl FnMut(&[usize], &Tensor<B, 2>),
    ) -> Activations<B> {
        let x = match stage {
            Stage::Entry => self.enter(x, &places, &mut see),
            Stage::Block(index) => {
                let block = &self.architecture.blocks[index];
                let x = Residuals { x, added: Vec::new() };
                let at = At { places: &places, rotaries: &rotaries };
                let unfinished = self.block(block, x, &at, &mut KvBlock::scratch(), &mut see);
                self.end_block(block, unfinished).sum()
            }
            Stage::Exit => self.leave(Residuals { x, added: Vec::new() }, &mut see),
        };
        Activations { places, rotaries, x }
    }

    /// As [`Decoder::run_stage`] without the last linear's product, for those who want to see inputs only.
    pub fn observe_stage(
        &self,
        stage: Stage,
        activations: &Activations<B>,
        mut see: impl FnMut(&[usize], &Tensor<B, 2>),
    ) {
        match stage {
            Stage::Block(index) => {
                let x = Residuals { x: activations.x.clone(), added: Vec::new() };
                let see: See<'_, B> = &mut see;
                let at = At { places: &activations.places, rotaries: &activations.rotaries };
                self.block(&self.architecture.blocks[index], x, &at, &mut KvBlock::scratch(), see);
            }
            Stage::Entry | Stage::Exit => drop(self.run_stage(stage, activations.clone(), see)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{architecture, published};
    use super::*;
    use crate::model::Part;
    use burn::backend::Flex;
    use burn::tensor::DType;
    use std::convert::Infallible;
    use std::sync::Arc;

    /// Small networks of every kind of residual, projection and feed-forward layer.
    fn networks() -> Vec<Decoder<Flex>> {
        let shrink = |name: &str, keys: &[(&str, usize)]| {
            let mut config = published(name).unwrap();
            for (key, value) in keys {
                config[*key] = serde_json::json!(value);
            }
            Arc::new(architecture(&config).unwrap())
        };
        let width = [("hidden_size", 16), ("num_hidden_layers", 2), ("num_attention_heads", 4), ("vocab_size", 50)];
        let with = |more: &[(&'static str, usize)]| [&width[..], more].concat();
        let all = [
            shrink("opt-125m", &with(&[("ffn_dim", 24), ("word_embed_proj_dim", 16)])),
            shrink("opt-350m", &with(&[("ffn_dim", 24), ("word_embed_proj_dim", 8)])),
            // A quarter of a head is rotated: an even number.
            shrink("pythia-160m", &with(&[("intermediate_size", 24), ("num_attention_heads", 2)])),
            shrink("smollm2-135m", &with(&[("intermediate_size", 24), ("num_key_value_heads", 2)])),
            shrink("gpt2", &[("n_embd", 16), ("n_layer", 2), ("n_head", 4), ("vocab_size", 50)]),
        ];
        let kin = [
            ("qwen3-0.6b", vec![("intermediate_size", 24), ("num_key_value_heads", 2), ("head_dim", 6)]),
            ("gemma-2-2b", vec![("intermediate_size", 24), ("num_key_value_heads", 2), ("head_dim", 6)]),
            ("phi-3-mini", vec![("intermediate_size", 24), ("num_key_value_heads", 2)]),
            ("olmo-2-1b", vec![("intermediate_size", 24), ("num_key_value_heads", 4)]),
            // Few experts, all of which every batch of these tests reaches.
            (
                "olmoe-1b-7b",
                vec![
                    ("intermediate_size", 24),
                    ("num_key_value_heads", 4),
                    ("num_experts", 3),
                    ("num_experts_per_tok", 3),
                ],
            ),
        ];
        let kin = kin.iter().map(|(name, more)| shrink(name, &with(more)));
        all.into_iter().chain(kin).map(random).collect()
    }

    fn random(architecture: Arc<Architecture>) -> Decoder<Flex> {
        let numbers = |module: usize, part: Part| {
            let described = &architecture.modules[module];
            let count = if part == Part::Bias { described.biases() } else { described.weights() };
            let number = |i: usize| ((i * 37 + module * 101) % 113) as f32 / 113.0 - 0.4;
            Ok::<Vec<f32>, Infallible>((0..count).map(number).collect())
        };
        let Ok(decoder) = Decoder::load(architecture.clone(), DType::F32, &Default::default(), numbers);
        decoder
    }

    fn numbers(tensor: &Tensor<Flex, 2>) -> Vec<f32> {
        tensor.to_data().into_vec().unwrap()
    }

    #[test]
    fn stages_make_up_a_pass() {
        let batch = Batch::new([&[1, 2, 3, 4][..], &[5, 6], &[7, 8, 9]]);
        for mut decoder in networks() {
            let whole = decoder.hidden(&batch).unwrap();
            let mut activations = decoder.begin(&batch).unwrap();
            for stage in decoder.architecture().stages() {
                activations = decoder.run_stage(stage, activations, |_, _| {});
            }
            assert_eq!(numbers(activations.tensor()), numbers(&whole), "{}", decoder.architecture().family);
        }
    }

    /// Rules that look at the length turn batches of other lengths otherwise, whichever was begun last.
    #[test]
    fn a_batch_is_rotated_as_it_was_begun() {
        let long: Vec<u32> = (0..30).collect();
        for rule in [
            serde_json::json!({"type": "dynamic", "factor": 2.0}),
            serde_json::json!({"type": "longrope", "short_factor": [1.0, 1.2], "long_factor": [2.0, 5.0],
                "original_max_position_embeddings": 8}),
        ] {
            let config = serde_json::json!({"model_type": "llama", "hidden_size": 16, "num_attention_heads": 4,
                "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 50,
                "max_position_embeddings": if rule["type"] == "dynamic" { 8 } else { 64 }, "rope_scaling": rule});
            let mut decoder = random(Arc::new(architecture(&config).unwrap()));
            let batches = [Batch::new([&long[..3], &long[..20]]), Batch::new([&long[..30]]), Batch::new([&long[..5]])];
            let begun = batches.clone().map(|batch| decoder.begin(&batch).unwrap());
            for (batch, mut activations) in batches.iter().zip(begun) {
                for stage in decoder.architecture().clone().stages() {
                    activations = decoder.run_stage(stage, activations, |_, _| {});
                }
                let whole = decoder.hidden(batch).unwrap();
                assert_eq!(numbers(activations.tensor()), numbers(&whole), "{rule}");
            }
        }
    }

    #[test]
    fn every_linear_is_seen_once_with_what_it_reads() {
        let batch = Batch::new([&[1, 2, 3, 4][..], &[5, 6]]);
        for mut decoder in networks() {
            let mut all: Vec<usize> = Vec::new();
            let mut activations = decoder.begin(&batch).unwrap();
            let architecture = decoder.architecture().clone();
            for stage in architecture.stages() {
                let mut seen = Vec::new();
                decoder.observe_stage(stage, &activations, |linears, x| {
                    assert!(linears.iter().all(|&linear| architecture.modules[linear].shape[1] == x.dims()[1]));
                    seen.push((linears.to_vec(), numbers(x)));
                });
                let mut again = Vec::new();
                activations =
                    decoder.run_stage(stage, activations, |linears, x| again.push((linears.to_vec(), numbers(x))));
                assert_eq!(seen, again);
                let groups: Vec<Vec<usize>> = seen.into_iter().map(|(linears, _)| linears).collect();
                assert_eq!(groups, architecture.linears_of(stage), "{} {stage:?}", architecture.family);
                all.extend(groups.concat());
            }
            all.sort_unstable();
            let linears: Vec<usize> = architecture.linears().map(|(index, _)| index).collect();
            assert_eq!(all, linears, "{}", architecture.family);
        }
    }
}
