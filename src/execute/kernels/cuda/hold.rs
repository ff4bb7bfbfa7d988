//! A kernel that does nothing for as long as it is told.

use cubecl::prelude::*;

/// A chain of `count` dependent multiplications and additions in one thread. The result is written, so that the
/// chain is not taken out.
#[cube(launch_unchecked)]
pub fn spin(out: &mut Array<f32>, count: u32) {
    let mut number = f32::new(1.0);
    let mut i = 0u32;
    while i < count {
        number = number * 0.999f32 + 0.5f32;
        i += 1u32;
    }
    out[0] = number;
}
