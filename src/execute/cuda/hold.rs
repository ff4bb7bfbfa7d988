//! Keeping the GPU busy for a given time, so that kernels that are timed are launched before the first of them runs.

use super::Cuda;
use crate::execute::kernels::cuda::hold::spin;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::prelude::*;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Steps of the chain that are timed once: a few milliseconds.
const CALIBRATION: u32 = 1 << 20;
/// The time of a step that a GPU certainly needs, where it can't be timed: four cycles at 2 GHz.
const SECONDS_PER_STEP: f64 = 2e-9;

/// Returns at once; the GPU is busy for about this long.
pub(super) fn hold(device: &CudaDevice, time: Duration) {
    static STEP: OnceLock<f64> = OnceLock::new();
    let step = STEP.get_or_init(|| calibrate(device));
    launch(device, steps(time, *step));
}

/// Steps that take this long.
fn steps(time: Duration, step: f64) -> u32 {
    // A cast saturates.
    (time.as_secs_f64() / step).ceil() as u32
}

/// Seconds of a step: twice the chain against once, so that launching and waiting drop out.
fn calibrate(device: &CudaDevice) -> f64 {
    let seconds = |count| {
        let start = Instant::now();
        launch(device, count);
        // A device that fails here fails again where something is timed.
        let _ = Cuda::sync(device);
        start.elapsed().as_secs_f64()
    };
    // The first call compiles, the others let the clock rise.
    (0..3).for_each(|_| {
        seconds(CALIBRATION);
    });
    let step = (seconds(2 * CALIBRATION) - seconds(CALIBRATION)) / f64::from(CALIBRATION);
    if step > SECONDS_PER_STEP / 10.0 { step } else { SECONDS_PER_STEP }
}

fn launch(device: &CudaDevice, count: u32) {
    let client = CudaRuntime::client(device);
    let out = empty_device_contiguous_dtype(client.clone(), device.clone(), Shape::new([1]), DType::F32);
    // SAFETY: the kernel writes one number, for which `out` has room.
    unsafe {
        spin::launch_unchecked::<CudaRuntime>(
            &client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(1),
            out.into_array_arg(),
            count,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_fill_the_time_and_saturate() {
        assert_eq!(steps(Duration::from_micros(300), 2e-9), 150_000);
        assert_eq!(steps(Duration::from_nanos(1), 2e-9), 1);
        assert_eq!(steps(Duration::from_secs(1000), 2e-9), u32::MAX);
    }
}
