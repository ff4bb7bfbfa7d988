//! What a linear reads, made in its own launch: see `elements.cuh`.
//!
//! ```text
//!   norm, gate ──later──> waits in the script ─┬─ the next launch is a linear of one token that reads it ──> made there
//!                                              └─ anything else comes ──> launched as ever, before that
//! ```
//! Every block of the linear makes the inputs again, which costs less than a launch, and their numbers are written all the
//! same: who else reads them finds them. Nothing here knows which linears there are.

use super::script;
use super::stream::Gpu;
use crate::execute::cuda::Tensor;
use crate::execute::decode::Activation;
use burn::tensor::TensorMetadata;
use std::rc::Rc;

/// How inputs come about.
#[derive(Clone, Debug)]
pub(in crate::execute::cuda) enum Making {
    /// The norm of `x` and up to two more, whose sum is wanted where there are more.
    Norm { added: Vec<Tensor>, gain: Tensor, bias: Option<Tensor>, sum: Tensor, centred: bool, eps: f64 },
    /// `f(x)`, or `f(x) · up`.
    Gate { function: Activation, up: Option<Tensor> },
}

/// Inputs of one token, and what they are made of.
#[derive(Clone, Debug)]
pub(in crate::execute::cuda) struct Reads {
    pub x: Tensor,
    pub making: Making,
    /// The inputs.
    pub out: Tensor,
}

/// Buffers of `ReadsBuffers`.
pub(super) const BUFFERS: usize = 6;

impl Reads {
    /// The macros of a kernel that makes its inputs so.
    pub(super) fn macros(&self) -> Vec<(&'static str, u32)> {
        match self.making {
            Making::Norm { .. } => vec![("READS", 1)],
            Making::Gate { function, .. } => vec![("READS", 2), ("FUNCTION", number(function))],
        }
    }

    /// The struct `ReadsBuffers`.
    pub(super) fn buffers(&self) -> [&Tensor; BUFFERS] {
        let Self { x, making, out } = self;
        match making {
            Making::Norm { added, gain, bias, sum, .. } => {
                let term = |at: usize| added.get(at).unwrap_or(x);
                [term(0), term(1), gain, bias.as_ref().unwrap_or(gain), sum, out]
            }
            Making::Gate { up, .. } => [up.as_ref().unwrap_or(x), x, x, x, out, out],
        }
    }

    /// The struct `ReadsParams`.
    pub(super) fn params(&self) -> [u32; 4] {
        match &self.making {
            Making::Norm { added, bias, centred, eps, .. } => {
                [added.len() as u32, u32::from(*centred), u32::from(bias.is_some()), (*eps as f32).to_bits()]
            }
            Making::Gate { up, .. } => [u32::from(up.is_some()), 0, 0, 0],
        }
    }

    /// Whether every block of a linear can make them: an error function in each costs more than a launch.
    fn is_cheap(&self) -> bool {
        match self.making {
            Making::Norm { .. } => true,
            Making::Gate { function, .. } => match function {
                Activation::Relu | Activation::QuickGelu | Activation::Silu => true,
                Activation::Gelu | Activation::GeluTanh => false,
            },
        }
    }
}

/// The struct `ReadsParams` of inputs that are as they are.
pub(super) const AS_THEY_ARE: [u32; 4] = [0; 4];

/// The macro `FUNCTION`.
pub(super) fn number(function: Activation) -> u32 {
    match function {
        Activation::Relu => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::QuickGelu => 3,
        Activation::Silu => 4,
    }
}

/// Launches what makes the inputs, or lets it wait for a linear that does so itself: in a script, of one token.
pub(in crate::execute::cuda) fn later(reads: Reads, launch: impl FnOnce(&Reads) + 'static) {
    if !script::is_open() || reads.out.shape()[0] != 1 || !reads.is_cheap() {
        return launch(&reads);
    }
    let reads = Rc::new(reads);
    let waiting = reads.clone();
    script::later(reads, move || launch(&waiting));
}

/// What waits, if it makes `x` and `can` be made by who asks; then it is for this one to do.
pub(super) fn taken(gpu: &Gpu, x: &Tensor, can: impl FnOnce(&Gpu, &Reads) -> bool) -> Option<Rc<Reads>> {
    script::taken(|reads: &Rc<Reads>| same(&reads.out, x) && can(gpu, reads))
}

/// Whether two tensors without gaps are the same numbers of the same memory.
fn same(a: &Tensor, b: &Tensor) -> bool {
    // The memory's number is not to be had otherwise; where it lies may not be known yet.
    let memory = |tensor: &Tensor| {
        let text = format!("{:?}", tensor.handle.memory);
        text.split("location").next().unwrap_or_default().to_owned()
    };
    let place =
        |tensor: &Tensor| (tensor.handle.offset_start.unwrap_or(0), tensor.shape().num_elements(), tensor.dtype);
    place(a) == place(b) && memory(a) == memory(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_has_a_number_of_its_own() {
        let all = [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu];
        assert_eq!(all.map(number), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_memory_is_told_by_its_number_alone() {
        let text = format!("{:?}", cubecl::server::Handle::new(cubecl::stream_id::StreamId::current(), 8).memory);
        let (number, place) = text.split_once("location").expect("the version of CubeCL is pinned");
        assert!(number.chars().any(|c| c.is_ascii_digit()) && place.contains("init"), "{text}");
    }
}
