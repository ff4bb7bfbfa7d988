//! `info`: versions, devices, cache paths.

use super::output::Printer;
use crate::config::experiment::BackendChoice;
use crate::error::{CliError, exit};
use crate::execute::device::{self, DeviceError};
use crate::execute::kernels::cpu::Simd;
use crate::load::hub::HubSettings;
use crate::record::{Machine, Program};
use indicatif::HumanBytes;

pub(super) fn info() -> Result<u8, CliError> {
    let program = Program::current();
    let machine = Machine::current(Simd::detect().name());
    let auto = device::resolve(BackendChoice::Auto, 0).map_or_else(|e| e.to_string(), |backend| backend.to_string());
    let cuda = device::resolve(BackendChoice::Cuda, 0)
        .map_or_else(reason, |_| format!("usable, dense products: {}", device::dense_library()));
    let kernels = device::kernel_cache().map_or_else(|| "none: no home folder".into(), |p| p.display().to_string());
    let hub = HubSettings::from_env(false);
    let cache = hub.as_ref().map_or_else(ToString::to_string, |hub| hub.cache.display().to_string());
    let offline = hub.as_ref().is_ok_and(|hub| hub.offline);
    let lines = [
        ("version", program.to_string()),
        ("features", program.features.join(", ")),
        ("system", machine.os),
        ("processor", format!("{}, {} threads, kernels: {}", machine.cpu, machine.cores, machine.simd)),
        ("memory", HumanBytes(machine.memory_bytes).to_string()),
        ("gpus", if machine.gpus.is_empty() { "none".into() } else { machine.gpus.join("; ") }),
        ("cuda", cuda),
        ("backend auto", auto),
        ("kernel cache", kernels),
        ("hub cache", cache),
        ("hub offline", offline.to_string()),
    ];
    for (name, value) in lines {
        Printer::data(&format!("{name:<13} {value}\n"));
    }
    Ok(exit::OK)
}

/// Why a GPU can't be used, and what to do about it.
fn reason(error: DeviceError) -> String {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{}{hint}", error.to_string().replace("`backend = \"cuda\"`, but ", "not usable: "))
}
