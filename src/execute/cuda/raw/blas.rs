//! NVIDIA's matrix product, cublasLt, on Burn's stream.
//!
//! The library is opened where it is installed. It is as the memory has it: a row-major `[rows, cols]` is its
//! column-major `[cols, rows]`, so that `y = x . W^T` is `Y = op(W) X` with `op` a transposition. Rows of a weight may
//! be further apart than they are long, as CubeCL uploads narrow ones.
//!
//! The library names several kernels for a product, the likeliest first, and cuBLAS itself, which PyTorch calls, may
//! have another: [`candidates`]. Which is fastest, others say.

use super::page;
use super::stream::{Gpu, Server};
use crate::execute::cuda::Tensor;
use burn::tensor::DType;
use cubecl::server::Handle;
use cudarc::cublas::sys::cublasOperation_t;
use cudarc::cublaslt::result::{self as lt, CublasError};
use cudarc::cublaslt::sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// The name of the kernel.
pub(in crate::execute::cuda) const NAME: &str = "dense-cublas";
/// Bytes of memory that a product may work in.
const WORKSPACE: usize = 32 << 20;
/// Bytes at whose multiples matrices begin.
const ALIGN: usize = 16;
/// Weights from which on it matters which kernel it is.
pub(in crate::execute::cuda) const WORTH_COMPARING: usize = 2 << 20;
/// So many kernels are asked for.
const MOST_CANDIDATES: usize = 6;

/// A product, but for its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::execute::cuda) struct Job {
    pub dtype: DType,
    pub tokens: usize,
    pub rows: usize,
    pub cols: usize,
    /// Numbers from where a row of the weight begins to the next.
    pub stride: usize,
    pub bias: bool,
}

/// A product that the library has kernels for: its descriptions, as addresses, which are kept for good.
#[derive(Clone)]
struct Plan {
    library: usize,
    product: usize,
    weight: usize,
    x: usize,
    y: usize,
    /// At least one.
    algorithms: Arc<[sys::cublasLtMatmulAlgo_t]>,
    /// A handle of cuBLAS, which adds no bias; none where it is not installed.
    plain: Option<usize>,
    job: Job,
}

/// By device; none where the library has no kernel.
type Plans = HashMap<(usize, Job), Option<Plan>>;

static PLANS: LazyLock<Mutex<Plans>> = LazyLock::new(Mutex::default);
/// By device: a handle of the library.
static LIBRARIES: LazyLock<Mutex<HashMap<usize, usize>>> = LazyLock::new(Mutex::default);
/// By device: a handle of cuBLAS, which is opened where several kernels are compared; none where it is not installed.
static PLAIN: LazyLock<Mutex<HashMap<usize, Option<usize>>>> = LazyLock::new(Mutex::default);

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

/// Whether it can be asked for products of such matrices: of any shape, though it is slower where lines do not begin at
/// multiples of 16 bytes.
pub(in crate::execute::cuda) fn can(dtype: DType, [rows, cols]: [usize; 2], stride: usize) -> bool {
    dtype.size() == 2 && rows > 0 && cols > 0 && stride >= cols && installed()
}

/// `y [tokens, rows] = x [tokens, cols] . weight^T [rows, cols] + bias` by one of the [`candidates`]; false where it
/// can't be planned.
///
/// # Safety
/// The tensors have the job's shape and type, which [`can`] be multiplied; `x` and `y` have no gaps, a row of the weight
/// begins every `stride` numbers; there is a bias where the job has one.
pub(in crate::execute::cuda) unsafe fn product(
    gpu: &Gpu,
    job: Job,
    candidate: usize,
    [x, weight]: [&Tensor; 2],
    bias: Option<&Tensor>,
    y: &Tensor,
) -> bool {
    let aligned = |tensor: &Tensor| tensor.handle.offset_start.unwrap_or(0).is_multiple_of(ALIGN as u64);
    if ![x, weight, y].into_iter().chain(bias).all(aligned) {
        return false;
    }
    let Some(plan) = planned(gpu, job) else { return false };
    let workspace = WORKSPACES.with_borrow_mut(|workspaces| {
        workspaces.entry(gpu.device).or_insert_with(|| x.client.empty(WORKSPACE)).clone()
    });
    let (stream, id) = (gpu.stream, gpu.id);
    let handles = [x, weight, bias.unwrap_or(x), y].map(|tensor| tensor.handle.clone());
    let handles: Vec<Handle> = handles.into_iter().chain([workspace]).collect();
    page::hold(&handles);
    let pen = page::pen();
    let bindings: Vec<_> = handles.into_iter().map(Handle::binding).collect();
    gpu.submit(move |server: &mut Server| {
        use cubecl::server::ComputeServer;
        let resources: Vec<_> = bindings.into_iter().map(|binding| server.get_resource(binding, id)).collect();
        let address = |at: usize| match &resources[at] {
            Ok(resource) => resource.resource().ptr,
            Err(error) => panic!("{NAME}: a buffer is gone: {error:?}"),
        };
        // SAFETY: the plan's addresses are of objects that are never freed; the buffers have the plan's shapes, as the
        // caller promises, and live until the call returns, after which the stream keeps their order; only this thread
        // sets the bias.
        let addresses = [0, 1, 2, 3, 4].map(address);
        let multiplied = unsafe { plan.run(candidate, addresses, job.bias, stream) };
        if let Err(error) = multiplied {
            panic!("{NAME}: the product failed: {error:?}");
        }
        if let Some(pen) = pen {
            // SAFETY: as above; the script holds the buffers.
            pen.write(NAME.into(), move |stream, _| unsafe {
                plan.run(candidate, addresses, job.bias, stream).map_err(|error| format!("{error:?}"))
            });
        }
    });
    true
}

/// How many kernels there are for such a product, of which the first is the library's own choice.
pub(in crate::execute::cuda) fn candidates(gpu: &Gpu, job: Job) -> usize {
    planned(gpu, job).map_or(0, |plan| plan.algorithms.len() + usize::from(plan.plain.is_some()))
}

/// The device's handle of cuBLAS, on its server's thread.
fn plain_handle(device: usize) -> Option<usize> {
    let mut handles = PLAIN.lock().unwrap_or_else(PoisonError::into_inner);
    *handles.entry(device).or_insert_with(|| {
        // SAFETY: opens shared libraries, whose initialisers have no precondition.
        let there = unsafe { cudarc::cublas::sys::is_culib_present() };
        there.then(|| cudarc::cublas::result::create_handle().ok()).flatten().map(|handle| handle as usize)
    })
}

fn planned(gpu: &Gpu, job: Job) -> Option<Plan> {
    let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(plan) = plans.get(&(gpu.device, job)) {
        return plan.clone();
    }
    let device = gpu.device;
    let plan = gpu.handle.submit_blocking(move |_| Plan::new(device, job).ok()).ok().flatten();
    plans.insert((device, job), plan.clone());
    plan
}

impl Plan {
    /// On the server's thread, whose context is the device's.
    fn new(device: usize, job: Job) -> Result<Self, CublasError> {
        let Job { dtype, tokens, rows, cols, stride, bias } = job;
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
        let layout = |lines: usize, length: usize, stride: usize| {
            lt::create_matrix_layout(number, length as u64, lines as u64, stride as i64)
        };
        let [weight, x, y] = [layout(rows, cols, stride)?, layout(tokens, cols, cols)?, layout(tokens, rows, rows)?];
        let preference = lt::create_matmul_pref()?;
        use sys::cublasLtMatmulDescAttributes_t as Description;
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let transposed = cublasOperation_t::CUBLAS_OP_T;
        let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        let (most, align) = (WORKSPACE, ALIGN as u32);
        // SAFETY: the objects were just made; an attribute's value is read while the call runs and has its size.
        let algorithms = unsafe {
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
            let mut found: [MaybeUninit<sys::cublasLtMatmulHeuristicResult_t>; MOST_CANDIDATES] =
                [const { MaybeUninit::uninit() }; MOST_CANDIDATES];
            let mut count = 0;
            let (first, most) = (found.as_mut_ptr().cast(), MOST_CANDIDATES as i32);
            let asked = sys::cublasLtMatmulAlgoGetHeuristic(
                library, product, weight, x, y, y, preference, most, first, &mut count,
            );
            lt::destroy_matmul_pref(preference)?;
            asked.result()?;
            let found = found[..usize::try_from(count).unwrap_or(0).min(MOST_CANDIDATES)].iter();
            let usable = found.map(|result| result.assume_init_ref()).filter(|result| {
                result.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS && result.workspaceSize <= WORKSPACE
            });
            usable.map(|result| result.algo).collect::<Arc<[_]>>()
        };
        if algorithms.is_empty() {
            return Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED));
        }
        let [product, weight, x, y] = [product as usize, weight as usize, x as usize, y as usize];
        let plain = if !bias && rows * cols >= WORTH_COMPARING { plain_handle(device) } else { None };
        Ok(Self { library, product, weight, x, y, algorithms, plain, job })
    }

    /// # Safety
    /// The addresses are of inputs, weight, bias, outputs and workspace with the plan's shapes; no other thread runs it.
    unsafe fn run(
        &self,
        candidate: usize,
        [x, weight, bias, y, workspace]: [u64; 5],
        has_bias: bool,
        stream: usize,
    ) -> Result<(), CublasError> {
        let (one, zero) = (1.0f32, 0.0f32);
        if let (Some(plain), true) = (self.plain, candidate == self.algorithms.len()) {
            // SAFETY: the caller's promise.
            return unsafe { self.run_plain(plain, [x, weight, y], stream) };
        }
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
                &self.algorithms[candidate.min(self.algorithms.len() - 1)],
                workspace as *mut c_void,
                WORKSPACE,
                stream as sys::cudaStream_t,
            )
        }
    }

    /// By cuBLAS, without a bias.
    ///
    /// # Safety
    /// As [`Plan::run`], with a handle of cuBLAS on the server's thread.
    unsafe fn run_plain(&self, handle: usize, [x, weight, y]: [u64; 3], stream: usize) -> Result<(), CublasError> {
        use cudarc::cublas::{result as plain, sys as plain_sys};
        let Job { dtype, tokens, rows, cols, stride, .. } = self.job;
        let number = match dtype {
            DType::BF16 => plain_sys::cudaDataType_t::CUDA_R_16BF,
            _ => plain_sys::cudaDataType_t::CUDA_R_16F,
        };
        let (one, zero) = (1.0f32, 0.0f32);
        let handle = handle as plain_sys::cublasHandle_t;
        // SAFETY: the caller's promise; the factors are read while the call runs.
        let multiplied = unsafe {
            plain::set_stream(handle, stream as _).and_then(|()| {
                plain::gemm_ex(
                    handle,
                    plain_sys::cublasOperation_t::CUBLAS_OP_T,
                    plain_sys::cublasOperation_t::CUBLAS_OP_N,
                    rows as i32,
                    tokens as i32,
                    cols as i32,
                    std::ptr::from_ref(&one).cast(),
                    weight as *const c_void,
                    number,
                    stride as i32,
                    x as *const c_void,
                    number,
                    cols as i32,
                    std::ptr::from_ref(&zero).cast(),
                    y as *mut c_void,
                    number,
                    rows as i32,
                    plain_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                    plain_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
                )
            })
        };
        multiplied.map_err(|_| CublasError(sys::cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED))
    }
}
