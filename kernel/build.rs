//! Hands the linker script to the linker.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rustc-link-arg-bins=-T{here}/kernel.ld");
    println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
    // Of functions that came out alike one is kept.
    println!("cargo:rustc-link-arg-bins=--icf=all");
    println!("cargo:rerun-if-changed=kernel.ld");
}
