//! Number formats.

use crate::keyword::{UnknownKeyword, keywords};

keywords! {
    /// The number format of the weights and of the computation.
    Dtype "dtype" {
        F32 "f32" "32-bit IEEE float",
        F16 "f16" "16-bit IEEE float; models on a GPU only",
        Bf16 "bf16" "16-bit float with the exponent range of f32; models on a GPU only",
    }
}
