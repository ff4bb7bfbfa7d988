//! The matrices of a model, whatever its family calls them: fused weights are taken apart.
//!
//! ```text
//!   separate   q  k  v                             one matrix each
//!   stacked    [q q .. k k .. v v ..]              GPT-2, Phi-3: rows of q, then of k, then of v
//!   per head   [q0 k0 v0  q1 k1 v1  ..]            GPT-NeoX, Falcon: for every key-value head its rows of q, k and v
//!   fused      [gate gate .. up up ..]             Phi-3: rows of the gate, then of up
//!   experts    gate up down, gate up down, ..      a layer has several of each
//! ```

use crate::config::analysis::Role;
use crate::model::{Architecture, Attention, Gated, Mlp, Projections};

/// A matrix of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub layer: usize,
    pub role: Role,
    /// The linear that it is, or is a part of.
    pub module: usize,
    /// The rows of it, where it is a part.
    pub rows: Option<Vec<usize>>,
    /// The expert that it is of: a layer has several matrices of that role.
    pub expert: Option<usize>,
}

impl Slot {
    /// `[out_features, in_features]`.
    pub fn shape(&self, architecture: &Architecture) -> [usize; 2] {
        let shape = &architecture.modules[self.module].shape;
        [self.rows.as_ref().map_or(shape[0], Vec::len), shape[1]]
    }
}

/// Every matrix of the blocks, layer by layer, in the order of roles.
pub(super) fn slots(architecture: &Architecture) -> Vec<Slot> {
    let mut all = Vec::new();
    for (layer, block) in architecture.blocks.iter().enumerate() {
        let whole = |role, module| Slot { layer, role, module, rows: None, expert: None };
        match block.projections {
            Projections::Separate { q, k, v } => {
                all.extend([whole(Role::Q, q), whole(Role::K, k), whole(Role::V, v)]);
            }
            Projections::Stacked(fused) | Projections::PerHead(fused) => {
                let rows = fused_rows(&architecture.attention, block.projections);
                let part = |(role, rows)| Slot { rows: Some(rows), ..whole(role, fused) };
                all.extend([Role::Q, Role::K, Role::V].into_iter().zip(rows).map(part));
            }
        }
        all.push(whole(Role::O, block.output));
        let gated =
            |&Gated { gate, up, down }: &Gated| [whole(Role::Gate, gate), whole(Role::Up, up), whole(Role::Down, down)];
        match &block.mlp {
            Mlp::Plain { up, down } => all.extend([whole(Role::Up, *up), whole(Role::Down, *down)]),
            Mlp::Gated(layer) => all.extend(gated(layer)),
            Mlp::Fused { gate_up, down } => {
                let half = architecture.modules[*gate_up].shape[0] / 2;
                let part = |role, first| Slot { rows: Some((first..first + half).collect()), ..whole(role, *gate_up) };
                all.extend([part(Role::Gate, 0), part(Role::Up, half), whole(Role::Down, *down)]);
            }
            Mlp::Experts(experts) => {
                for (index, expert) in experts.experts.iter().enumerate() {
                    all.extend(gated(expert).map(|slot| Slot { expert: Some(index), ..slot }));
                }
            }
        }
    }
    all
}

/// The rows of queries, keys and values in a fused linear.
fn fused_rows(attention: &Attention, projections: Projections) -> [Vec<usize>; 3] {
    let Attention { heads, kv_heads, head_dim, .. } = *attention;
    // Heads of each part, of which `repeat` follow each other in a row of parts.
    let (counts, repeat) = match projections {
        Projections::Separate { .. } | Projections::Stacked(_) => ([heads, kv_heads, kv_heads], 1),
        Projections::PerHead(_) => ([heads / kv_heads, 1, 1], kv_heads),
    };
    let all: usize = counts.iter().sum();
    let firsts = [0, counts[0], counts[0] + counts[1]];
    [0, 1, 2].map(|part| {
        let heads = (0..repeat).flat_map(|group| (0..counts[part]).map(move |head| group * all + firsts[part] + head));
        heads.flat_map(|head| head * head_dim..(head + 1) * head_dim).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{architecture, published};

    fn of(name: &str) -> (Architecture, Vec<Slot>) {
        let architecture = architecture(&published(name).unwrap()).unwrap();
        let slots = slots(&architecture);
        (architecture, slots)
    }

    #[test]
    fn every_family_has_its_roles() {
        for (name, roles) in [("opt-125m", "q k v o up down"), ("smollm2-135m", "q k v o gate up down")] {
            let (_, slots) = of(name);
            let first: Vec<&str> = slots.iter().filter(|slot| slot.layer == 0).map(|slot| slot.role.name()).collect();
            assert_eq!(first.join(" "), roles);
        }
    }

    #[test]
    fn fused_weights_are_taken_apart() {
        let (gpt2, slots) = of("gpt2");
        let rows =
            |slots: &[Slot], role: Role| slots.iter().find(|slot| slot.role == role).unwrap().rows.clone().unwrap();
        assert_eq!(rows(&slots, Role::K), (768..1536).collect::<Vec<_>>());
        assert_eq!(slots[1].shape(&gpt2), [768, 768]);
        // Pythia: heads of 64, three parts each.
        let (_, slots) = of("pythia-160m");
        let q = rows(&slots, Role::Q);
        assert_eq!((q[0], q[63], q[64]), (0, 63, 192));
        assert_eq!(rows(&slots, Role::V)[0], 128);
        let mut all: Vec<usize> = [Role::Q, Role::K, Role::V].into_iter().flat_map(|role| rows(&slots, role)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..3 * 768).collect::<Vec<_>>());
    }

    fn of_config(config: serde_json::Value) -> (Architecture, Vec<Slot>) {
        let architecture = architecture(&config).unwrap();
        let slots = slots(&architecture);
        (architecture, slots)
    }

    #[test]
    fn every_row_of_a_fused_weight_has_one_role() {
        for (config, q, k) in [
            // Two groups of three query heads, a key head and a value head, of four features.
            (
                serde_json::json!({"model_type": "falcon", "new_decoder_architecture": true, "hidden_size": 24,
                    "num_attention_heads": 6, "num_kv_heads": 2, "num_hidden_layers": 1, "vocab_size": 9}),
                [0, 1, 11, 20],
                [12, 13],
            ),
            // Six query heads, one key head, one value head.
            (
                serde_json::json!({"model_type": "falcon", "hidden_size": 24, "num_attention_heads": 6,
                    "num_hidden_layers": 1, "vocab_size": 9}),
                [0, 1, 11, 23],
                [24, 25],
            ),
            (
                serde_json::json!({"model_type": "phi3", "hidden_size": 24, "num_attention_heads": 6,
                    "num_key_value_heads": 3, "intermediate_size": 10, "num_hidden_layers": 1, "vocab_size": 9}),
                [0, 1, 11, 23],
                [24, 25],
            ),
        ] {
            let (network, slots) = of_config(config);
            let rows = |role: Role| slots.iter().find(|slot| slot.role == role).unwrap().rows.clone().unwrap();
            assert!(q.iter().all(|row| rows(Role::Q).contains(row)), "{} {:?}", network.family, rows(Role::Q));
            assert_eq!(rows(Role::K)[..2], k, "{}", network.family);
            let mut all = [rows(Role::Q), rows(Role::K), rows(Role::V)].concat();
            all.sort_unstable();
            assert_eq!(all, (0..network.modules[slots[0].module].shape[0]).collect::<Vec<_>>());
        }
    }

    #[test]
    fn experts_have_matrices_of_their_own() {
        let (network, slots) = of_config(serde_json::json!({"model_type": "olmoe", "hidden_size": 16,
            "num_attention_heads": 2, "num_experts": 3, "num_experts_per_tok": 2, "intermediate_size": 8,
            "num_hidden_layers": 1, "vocab_size": 9}));
        let gates: Vec<&str> = slots
            .iter()
            .filter(|slot| slot.role == Role::Gate)
            .map(|slot| network.modules[slot.module].name.as_str())
            .collect();
        assert_eq!(gates, ["0", "1", "2"].map(|expert| format!("model.layers.0.mlp.experts.{expert}.gate_proj")));
        assert_eq!(slots.len(), 4 + 3 * 3);
    }
}
