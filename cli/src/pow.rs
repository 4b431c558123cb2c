//! The one function that progress bars and the scheduler want of the system's mathematics library.

/// `x` to the power of `y`, under the name that the linker looks for. With it, the program is
/// loaded without `libm.so.6`, which takes a tenth of a short command's time
/// (docs/decisions/0030); indicatif and tokio estimate rates and means with it, nothing else.
#[expect(unsafe_code, reason = "a name that the linker knows")]
#[unsafe(no_mangle)]
extern "C" fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}
