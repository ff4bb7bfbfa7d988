//! The matrices of a model, whatever its family calls them: fused weights are taken apart.
//!
//! ```text
//!   separate   q  k  v                             one matrix each
//!   stacked    [q q .. k k .. v v ..]              GPT-2: rows of q, then of k, then of v
//!   per head   [q0 k0 v0  q1 k1 v1  ..]            GPT-NeoX: for every head its rows of q, k and v
//! ```

use crate::config::analysis::Role;
use crate::model::{Architecture, Mlp, Projections};

/// A matrix of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub layer: usize,
    pub role: Role,
    /// The linear that it is, or is a part of.
    pub module: usize,
    /// The rows of it, where it is a part.
    pub rows: Option<Vec<usize>>,
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
        let whole = |role, module| Slot { layer, role, module, rows: None };
        match block.projections {
            Projections::Separate { q, k, v } => {
                all.extend([whole(Role::Q, q), whole(Role::K, k), whole(Role::V, v)]);
            }
            Projections::Stacked(fused) => {
                let third = architecture.modules[fused].shape[0] / 3;
                let part =
                    |(at, role)| Slot { rows: Some((at * third..(at + 1) * third).collect()), ..whole(role, fused) };
                all.extend([Role::Q, Role::K, Role::V].into_iter().enumerate().map(part));
            }
            Projections::PerHead(fused) => {
                let (heads, width) = (architecture.attention.heads, architecture.attention.head_dim);
                let part = |(at, role): (usize, Role)| {
                    let rows = (0..heads).flat_map(|head| (head * 3 + at) * width..(head * 3 + at + 1) * width);
                    Slot { rows: Some(rows.collect()), ..whole(role, fused) }
                };
                all.extend([Role::Q, Role::K, Role::V].into_iter().enumerate().map(part));
            }
        }
        all.push(whole(Role::O, block.output));
        match block.mlp {
            Mlp::Plain { up, down } => all.extend([whole(Role::Up, up), whole(Role::Down, down)]),
            Mlp::Gated { gate, up, down } => {
                all.extend([whole(Role::Gate, gate), whole(Role::Up, up), whole(Role::Down, down)]);
            }
        }
    }
    all
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
}
