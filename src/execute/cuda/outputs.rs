//! Memory of small outputs, kept between launches.
//!
//! ```text
//!   launch ──> output ──┬─ a buffer of that size which nothing else holds ──> taken again
//!                       └─ none ──> the device's pool, which costs as much of the host's time as a launch
//! ```
//!
//! A decoded token takes hundreds of launches whose outputs are a few kilobytes each. What is written again was read by
//! launches that came before on the same stream, since a device's work comes from one thread, and buffers are kept by
//! thread.

use super::Tensor;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;
use cubecl::server::Handle;
use std::cell::RefCell;
use std::collections::HashMap;

/// Larger outputs are few, and their launches long.
const MOST_BYTES: usize = 256 << 10;
/// This many buffers are kept at most: 64 MiB of the largest.
const MOST_BUFFERS: usize = 256;

thread_local! {
    /// By device and bytes.
    static KEPT: RefCell<HashMap<(usize, usize), Vec<Handle>>> = RefCell::new(HashMap::new());
}

/// A tensor without gaps on the device of another, with whatever its memory held.
pub(super) fn output(like: &Tensor, shape: Shape, dtype: DType) -> Tensor {
    let handle = memory(&like.client, like.device.index, shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, handle, dtype)
}

/// Memory of a device that nothing else holds.
pub(super) fn memory(client: &ComputeClient<CudaRuntime>, device: usize, bytes: usize) -> Handle {
    if bytes > MOST_BYTES {
        return client.empty(bytes);
    }
    KEPT.with_borrow_mut(|kept| {
        let free = kept.get(&(device, bytes)).and_then(|buffers| buffers.iter().find(|buffer| buffer.can_mut()));
        if let Some(free) = free {
            return free.clone();
        }
        if kept.values().map(Vec::len).sum::<usize>() >= MOST_BUFFERS {
            kept.clear();
        }
        let new = client.empty(bytes);
        kept.entry((device, bytes)).or_default().push(new.clone());
        new
    })
}

/// A tensor's memory as a kernel's argument: without a copy of the tensor's other parts, as there are many launches.
pub(super) fn array(tensor: &Tensor) -> ArrayArg<CudaRuntime> {
    // SAFETY: the handle is the tensor's, which holds this many numbers from its offset on.
    unsafe { ArrayArg::from_raw_parts(tensor.handle.clone(), tensor.meta.num_elements()) }
}
