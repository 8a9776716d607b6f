//! The checked-in bindings are what bindgen makes of the header today.

/// In a build with `BITNET_BINDINGS=bindgen` (CI) the two must be equal; in a build from the checked-in copy there
/// is nothing to compare, and that is said.
#[test]
fn checked_in_bindings_are_current() {
    let checked_in = include_str!("../../rust/backends/contract/bindings.rs");
    let in_use = include_str!(concat!(env!("OUT_DIR"), "/bindings.rs"));
    if env!("BITNET_BINDINGS_ORIGIN") != "bindgen" {
        eprintln!("not compared: this build used the checked-in bindings, because no libclang was found");
        assert_eq!(checked_in, in_use, "the fallback is a plain copy");
        return;
    }
    assert!(checked_in == in_use, "the header changed: run `make bindings` and commit the result");
}
