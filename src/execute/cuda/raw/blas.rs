//! NVIDIA's matrix product, cublasLt, on Burn's stream.
//!
//! The library is opened where it is installed. It is as the memory has it: a row-major `[rows, cols]` is its
//! column-major `[cols, rows]`, so that `y = x . W^T` is `Y = op(W) X` with `op` a transposition.

use super::stream::{Gpu, Server};
use crate::execute::cuda::Tensor;
use burn::tensor::{DType, TensorMetadata};
use cubecl::server::Handle;
use cudarc::cublas::sys::cublasOperation_t;
use cudarc::cublaslt::result::{self as lt, CublasError};
use cudarc::cublaslt::sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

/// The name of the kernel.
pub(in crate::execute::cuda) const NAME: &str = "dense-cublas";
/// Bytes of memory that a product may work in.
const WORKSPACE: usize = 32 << 20;
/// Bytes at whose multiples matrices and lines begin.
const ALIGN: usize = 16;

/// What a product was planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    device: usize,
    dtype: DType,
    tokens: usize,
    rows: usize,
    cols: usize,
    bias: bool,
}

/// A product that the library has chosen a kernel for: its descriptions, as addresses, which are kept for good.
#[derive(Clone, Copy)]
struct Plan {
    library: usize,
    product: usize,
    weight: usize,
    x: usize,
    y: usize,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

static PLANS: LazyLock<Mutex<HashMap<Shape, Option<Plan>>>> = LazyLock::new(Mutex::default);
/// By device: a handle of the library.
static LIBRARIES: LazyLock<Mutex<HashMap<usize, usize>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// By device: memory that the products of this thread's stream work in, one after the other.
    static WORKSPACES: RefCell<HashMap<usize, Handle>> = RefCell::new(HashMap::new());
}

/// Whether the library is installed.
pub(in crate::execute::cuda) fn installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    // SAFETY: opens shared libraries, whose initialisers have no precondition.
    *INSTALLED.get_or_init(|| unsafe { sys::is_culib_present() })
}

/// The library that multiplies dense matrices of 16-bit numbers, as users read it; none where it is not installed.
pub fn version() -> Option<String> {
    if !installed() {
        return None;
    }
    // SAFETY: the library is there, and the call has no other precondition.
    let version = unsafe { sys::cublasLtGetVersion() };
    // 130100 is 13.1.0.
    Some(format!("cublasLt {}.{}", version / 10_000, version / 100 % 100))
}

/// Whether it multiplies such matrices, `[rows, cols]`, whose lines begin where it wants them to.
pub(in crate::execute::cuda) fn can(dtype: DType, rows: usize, cols: usize) -> bool {
    let whole = |numbers: usize| numbers > 0 && (numbers * dtype.size()).is_multiple_of(ALIGN);
    dtype.size() == 2 && whole(rows) && whole(cols) && installed()
}

/// `y [tokens, rows] = x [tokens, cols] . weight^T [rows, cols] + bias`; false where it can't be planned.
///
/// # Safety
/// The tensors have these shapes without gaps, and the same type, which [`can`] be multiplied.
pub(in crate::execute::cuda) unsafe fn product(
    gpu: &Gpu,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
) -> bool {
    let ([tokens, cols], rows) = (x.shape().dims(), weight.shape()[0]);
    let aligned = |tensor: &Tensor| tensor.handle.offset_start.unwrap_or(0).is_multiple_of(ALIGN as u64);
    if ![x, weight, y].into_iter().chain(bias).all(aligned) {
        return false;
    }
    let shape = Shape { device: gpu.device, dtype: x.dtype, tokens, rows, cols, bias: bias.is_some() };
    let Some(plan) = planned(gpu, shape) else { return false };
    let workspace = WORKSPACES.with_borrow_mut(|workspaces| {
        workspaces.entry(gpu.device).or_insert_with(|| x.client.empty(WORKSPACE)).clone()
    });
    let (stream, id) = (gpu.stream, gpu.id);
    let handles = [x, weight, bias.unwrap_or(x), y].map(|tensor| tensor.handle.clone());
    let bindings: Vec<_> = handles.into_iter().chain([workspace]).map(Handle::binding).collect();
    gpu.handle.submit(move |server: &mut Server| {
        use cubecl::server::ComputeServer;
        let resources: Vec<_> = bindings.into_iter().map(|binding| server.get_resource(binding, id)).collect();
        let address = |at: usize| match &resources[at] {
            Ok(resource) => resource.resource().ptr,
            Err(error) => panic!("{NAME}: a buffer is gone: {error:?}"),
        };
        // SAFETY: the plan's addresses are of objects that are never freed; the buffers have the plan's shapes, as the
        // caller promises, and live until the call returns, after which the stream keeps their order; only this thread
        // sets the bias.
        let multiplied = unsafe { plan.run([0, 1, 2, 3, 4].map(address), shape.bias, stream) };
        if let Err(error) = multiplied {
            panic!("{NAME}: the product failed: {error:?}");
        }
    });
    true
}

/// Whether the library has a kernel for such products: without a bias, and with one where that was asked for.
pub(in crate::execute::cuda) fn plans(gpu: &Gpu, dtype: DType, [tokens, rows, cols]: [usize; 3]) -> bool {
    let shape = |bias| Shape { device: gpu.device, dtype, tokens, rows, cols, bias };
    let with_bias = || PLANS.lock().unwrap_or_else(PoisonError::into_inner).get(&shape(true)).copied();
    planned(gpu, shape(false)).is_some() && with_bias().is_none_or(|plan| plan.is_some())
}

fn planned(gpu: &Gpu, shape: Shape) -> Option<Plan> {
    let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(plan) = plans.get(&shape) {
        return *plan;
    }
    let plan = gpu.handle.submit_blocking(move |_| Plan::new(shape).ok()).ok().flatten();
    plans.insert(shape, plan);
    plan
}

impl Plan {
    /// On the server's thread, whose context is the device's.
    fn new(shape: Shape) -> Result<Self, CublasError> {
        let Shape { device, dtype, tokens, rows, cols, bias } = shape;
        let number = match dtype {
            DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
            _ => sys::cudaDataType_t::CUDA_R_16F,
        };
        let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let library = match libraries.get(&device) {
            Some(&library) => library,
            None => {
                let library = lt::create_handle()? as usize;
                libraries.insert(device, library);
                library
            }
        };
        let sums = sys::cudaDataType_t::CUDA_R_32F;
        let product = lt::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sums)?;
        let layout =
            |lines: usize, length: usize| lt::create_matrix_layout(number, length as u64, lines as u64, length as i64);
        let [weight, x, y] = [layout(rows, cols)?, layout(tokens, cols)?, layout(tokens, rows)?];
        let preference = lt::create_matmul_pref()?;
        use sys::cublasLtMatmulDescAttributes_t as Description;
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let transposed = cublasOperation_t::CUBLAS_OP_T;
        let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        let (most, align) = (WORKSPACE, ALIGN as u32);
        // SAFETY: the objects were just made; an attribute's value is read while the call runs and has its size.
        let chosen = unsafe {
            let describe = |name, value: *const c_void| lt::set_matmul_desc_attribute(product, name, value, 4);
            describe(Description::CUBLASLT_MATMUL_DESC_TRANSA, std::ptr::from_ref(&transposed).cast())?;
            if bias {
                describe(Description::CUBLASLT_MATMUL_DESC_EPILOGUE, std::ptr::from_ref(&epilogue).cast())?;
            }
            let prefer =
                |name, value: *const c_void, size| lt::set_matmul_pref_attribute(preference, name, value, size);
            prefer(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::ptr::from_ref(&most).cast(), 8)?;
            for name in [
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ] {
                prefer(name, std::ptr::from_ref(&align).cast(), 4)?;
            }
            let library = library as sys::cublasLtHandle_t;
            let chosen = lt::get_matmul_algo_heuristic(library, product, weight, x, y, y, preference);
            lt::destroy_matmul_pref(preference)?;
            chosen?
        };
        let [product, weight, x, y] = [product as usize, weight as usize, x as usize, y as usize];
        Ok(Self { library, product, weight, x, y, algorithm: chosen.algo })
    }

    /// # Safety
    /// The addresses are of inputs, weight, bias, outputs and workspace with the plan's shapes; no other thread runs it.
    unsafe fn run(
        &self,
        [x, weight, bias, y, workspace]: [u64; 5],
        has_bias: bool,
        stream: usize,
    ) -> Result<(), CublasError> {
        let (one, zero) = (1.0f32, 0.0f32);
        let product = self.product as sys::cublasLtMatmulDesc_t;
        let of_y = self.y as sys::cublasLtMatrixLayout_t;
        // SAFETY: the caller's promise; the factors are read while the call runs.
        unsafe {
            if has_bias {
                let name = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
                lt::set_matmul_desc_attribute(product, name, std::ptr::from_ref(&bias).cast(), 8)?;
            }
            lt::matmul(
                self.library as sys::cublasLtHandle_t,
                product,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&zero).cast(),
                weight as *const c_void,
                self.weight as sys::cublasLtMatrixLayout_t,
                x as *const c_void,
                self.x as sys::cublasLtMatrixLayout_t,
                y as *const c_void,
                of_y,
                y as *mut c_void,
                of_y,
                &self.algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                stream as sys::cudaStream_t,
            )
        }
    }
}
