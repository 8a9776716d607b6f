//! Float products behind the contract: the functions that came with minor 1, as a safe [`FloatMatmul`].

use super::safe::ContractBackend;
use super::sys;
use crate::backends::{Arithmetic, BackendError, FloatMatmul, checks};
use crate::bitnet::model::{FloatMatrix, FloatType};
use std::marker::PhantomData;
use std::ptr;

/// Asks `backend` to make `matrix` ready.
pub(super) fn prepare<'a>(
    backend: &'a ContractBackend,
    matrix: FloatMatrix<'a>,
    arithmetic: Arithmetic,
    n_max: usize,
    threads: usize,
) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
    let function = backend.offered(backend.api.float_prepare, "float products")?;
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let doing = format!(
        "float products of {:?} {rows}x{cols} with up to {n_max} rows on {threads} threads, arithmetic {arithmetic:?}",
        matrix.float_type()
    );
    // As for integer products: scratch that no address space holds is not asked for.
    if rows.max(cols).checked_mul(n_max).is_none_or(|n| n > isize::MAX as usize / size_of::<f32>()) {
        return Err(BackendError::OutOfMemory { backend: backend.name.clone() });
    }
    let threads = u32::try_from(threads).map_err(|_| backend.unsupported(&doing))?;
    let raw = raw_matrix(&matrix, arithmetic);
    let mut handle = ptr::null_mut();
    // SAFETY: the bytes outlive the handle, because `ContractFloatMatmul` borrows them for 'a; their number is that of the
    // shape, which `FloatMatrix` checked.
    let status = backend.call(|| unsafe { function(&raw, n_max as u64, threads, &mut handle) })?;
    backend.answer(status, &doing, &[])?;
    if handle.is_null() {
        return Err(backend.internal(format!("{doing}: it answered OK without a handle")));
    }
    Ok(Box::new(ContractFloatMatmul { backend, handle, rows, cols, n_max, bytes: PhantomData }))
}

fn raw_matrix(matrix: &FloatMatrix<'_>, arithmetic: Arithmetic) -> sys::bnb_float_matrix {
    sys::bnb_float_matrix {
        type_: match matrix.float_type() {
            FloatType::F32 => sys::BNB_TYPE_F32,
            FloatType::F16 => sys::BNB_TYPE_F16,
            FloatType::Bf16 => sys::BNB_TYPE_BF16,
            FloatType::Q8_0 => sys::BNB_TYPE_Q8_0,
            FloatType::Q6K => sys::BNB_TYPE_Q6_K,
        },
        arithmetic: match arithmetic {
            Arithmetic::F32 => sys::BNB_ARITHMETIC_F32,
            Arithmetic::Native => sys::BNB_ARITHMETIC_NATIVE,
        },
        rows: matrix.rows() as u64,
        cols: matrix.cols() as u64,
        bytes: matrix.bytes().as_ptr(),
        n_bytes: matrix.bytes().len() as u64,
    }
}

/// A float matrix prepared behind the contract; freed on drop.
struct ContractFloatMatmul<'a> {
    backend: &'a ContractBackend,
    handle: *mut sys::bnb_float_matmul,
    rows: usize,
    cols: usize,
    n_max: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl FloatMatmul for ContractFloatMatmul<'_> {
    fn matmul_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let function = self.backend.offered(self.backend.api.float_matmul, "float products")?;
        let shape = (self.rows, self.cols);
        let n = checks::batch_of(("x", x.len()), ("y", y.len()), shape, self.n_max)?;
        // SAFETY: the handle is live and used by one thread (&mut); pointers are valid for their counts.
        let status = self.backend.call(|| unsafe {
            function(self.handle, x.as_ptr(), x.len() as u64, n as u64, y.as_mut_ptr(), y.len() as u64)
        })?;
        self.backend.answer(status, "float products", x)
    }
}

impl Drop for ContractFloatMatmul<'_> {
    fn drop(&mut self) {
        if let Some(function) = self.backend.api.float_free {
            // SAFETY: the handle came from this backend's float_prepare and is freed once.
            // There is no result that a changed floating-point mode could have spoilt, and it is put back.
            let _ = self.backend.call(|| unsafe { function(self.handle) });
        }
    }
}
