//! What a BitNet is: numbers, bytes and files. No timing, no backend, no threads, no clocks.

pub mod formats;
pub mod model;
pub mod quant;
