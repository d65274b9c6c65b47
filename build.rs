//! Embeds the kernel sources; compiles them ahead where `nvcc` is found; compiles them as C++ for the emulated device.
//!
//! Generated: `$OUT_DIR/kernels.rs`, included by `src/device/sources.rs`, and for the feature `emulated` one C++ file a kernel source that
//! lists its kernels. No other code is generated.
//!
//! Environment: `NVCC` (the compiler; else the one in `PATH`), `COUPLET_NO_NVCC=1` (do not look for it), `COUPLET_CUDA_ARCHS` (default
//! `sm_80,sm_90a,sm_100`), `COUPLET_ASAN=1` (the emulated device under AddressSanitizer).

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let root = PathBuf::from(var("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(var("OUT_DIR"));
    let kernels_dir = root.join("kernels");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    for name in ["NVCC", "COUPLET_NO_NVCC", "COUPLET_CUDA_ARCHS", "COUPLET_ASAN"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rustc-check-cfg=cfg(couplet_asan)");

    let sources = texts(&kernels_dir, "cu");
    let headers = texts(&kernels_dir, "cuh");
    let mut stem_of: BTreeMap<String, String> = BTreeMap::new();
    for (stem, text) in &sources {
        for kernel in kernels_in(stem, text) {
            if let Some(other) = stem_of.insert(kernel.clone(), stem.clone()) {
                panic!("the kernel {kernel} is in kernels/{other}.cu and in kernels/{stem}.cu");
            }
        }
    }
    let cubins = if env::var_os("CARGO_FEATURE_CUDA").is_some() { compile_ahead(&kernels_dir, &out, &sources) } else { Vec::new() };

    let mut rs = String::new();
    let text_of = |file: &Path| format!("include_str!({:?})", file.display().to_string());
    table(&mut rs, "SOURCES", "(&str, &str)", "The kernel sources: stem and text.", sources.keys(), |stem| {
        format!("({stem:?}, {})", text_of(&kernels_dir.join(format!("{stem}.cu"))))
    });
    table(&mut rs, "HEADERS", "(&str, &str)", "What the sources include: file name and text.", headers.keys(), |stem| {
        format!("({:?}, {})", format!("{stem}.cuh"), text_of(&kernels_dir.join(format!("{stem}.cuh"))))
    });
    table(
        &mut rs,
        "KERNELS",
        "(&str, &str)",
        "The kernels in the order of their names: name and stem of the source.",
        &stem_of,
        |(kernel, stem)| format!("({kernel:?}, {stem:?})"),
    );
    table(
        &mut rs,
        "CUBINS",
        "(&str, &str, &[u8])",
        "What was compiled ahead: stem, architecture, cubin.",
        &cubins,
        |(stem, arch, file)| format!("({stem:?}, {arch:?}, include_bytes!({:?}))", file.display().to_string()),
    );
    fs::write(out.join("kernels.rs"), rs).expect("writing to OUT_DIR");

    #[cfg(feature = "emulated")]
    emulated(&root, &out, &sources, &stem_of);
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// The files of that extension: stem and text, in the order of their names.
fn texts(dir: &Path, extension: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("reading kernels/") {
        let path = entry.expect("reading kernels/").path();
        if path.extension().is_some_and(|e| e == extension) {
            let stem = path.file_stem().expect("a file with an extension").to_string_lossy().into_owned();
            found.insert(stem, fs::read_to_string(&path).expect("reading a kernel source"));
        }
    }
    found
}

fn table<T>(rs: &mut String, name: &str, of: &str, says: &str, rows: impl IntoIterator<Item = T>, row: impl Fn(T) -> String) {
    writeln!(rs, "/// {says}\npub static {name}: &[{of}] = &[").expect("writing to a string");
    for r in rows {
        writeln!(rs, "    {},", row(r)).expect("writing to a string");
    }
    rs.push_str("];\n");
}

/// The names in `extern "C" __global__ void NAME(`, with or without `__launch_bounds__(...)` on either side of `void`.
fn kernels_in(stem: &str, text: &str) -> Vec<String> {
    const START: &str = "extern \"C\" __global__";
    let mut found = Vec::new();
    for (at, _) in text.match_indices(START) {
        let line_start = text[..at].rfind('\n').map_or(0, |i| i + 1);
        if text[line_start..at].trim_start().starts_with("//") {
            continue;
        }
        let mut rest = text[at + START.len()..].trim_start();
        loop {
            if let Some(r) = rest.strip_prefix("void") {
                rest = r.trim_start();
            } else if let Some(r) = rest.strip_prefix("__launch_bounds__(") {
                rest = r.split_once(')').map_or("", |(_, r)| r).trim_start();
            } else {
                break;
            }
        }
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let line = text[..at].matches('\n').count() + 1;
        assert!(
            !name.is_empty() && rest[name.len()..].trim_start().starts_with('('),
            "kernels/{stem}.cu, line {line}: a kernel is declared as `extern \"C\" __global__ void NAME(`, its name written out, so that it can be listed"
        );
        found.push(name);
    }
    found
}

/// Cubins of all sources for all architectures asked for; none, and a warning, if a compilation fails.
fn compile_ahead(dir: &Path, out: &Path, sources: &BTreeMap<String, String>) -> Vec<(String, String, PathBuf)> {
    let Some(nvcc) = find_nvcc() else { return Vec::new() };
    let archs = env::var("COUPLET_CUDA_ARCHS").unwrap_or_else(|_| "sm_80,sm_90a,sm_100".into());
    let jobs: Vec<(String, String, PathBuf)> = archs
        .split(',')
        .map(str::trim)
        .filter(|arch| !arch.is_empty())
        .flat_map(|arch| sources.keys().map(move |stem| (stem.clone(), arch.to_string(), out.join(format!("{stem}.{arch}.cubin")))))
        .collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let worker = || {
            let mut failed = Vec::new();
            while let Some((stem, arch, cubin)) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                let mut command = Command::new(&nvcc);
                command.args(["-cubin", "-std=c++17", "-O3", "--fmad=false", "-lineinfo"]).arg(format!("-arch={arch}"));
                // nvcc as a wheel does not know its own headers
                if let Some(include) = nvcc.parent().map(|bin| bin.with_file_name("include")).filter(|i| i.is_dir()) {
                    command.arg("-I").arg(include);
                }
                match command.arg("-o").arg(cubin).arg(dir.join(format!("{stem}.cu"))).output() {
                    Ok(o) if o.status.success() => {}
                    Ok(o) => failed.push(format!("kernels/{stem}.cu for {arch}: {}", first_error(&String::from_utf8_lossy(&o.stderr)))),
                    Err(e) => failed.push(format!("{}: {e}", nvcc.display())),
                }
            }
            failed
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let workers: Vec<_> = (0..cores.min(jobs.len())).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|w| w.join().expect("a worker does not panic")).collect()
    });
    if let Some(first) = failed.first() {
        println!("cargo:warning=nvcc failed, so kernels are compiled when the program runs: {first}");
        return Vec::new();
    }
    jobs
}

fn first_error(log: &str) -> &str {
    log.lines().find(|l| l.contains("error")).or(log.lines().next()).unwrap_or("no message")
}

fn find_nvcc() -> Option<PathBuf> {
    if env::var_os("COUPLET_NO_NVCC").is_some_and(|v| v != "0" && !v.is_empty()) {
        return None;
    }
    if let Some(named) = env::var_os("NVCC").filter(|v| !v.is_empty()) {
        return Some(named.into());
    }
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join("nvcc")).find(|f| f.is_file())
}

/// Each kernel source becomes a unit: the source in a namespace of its own, and the list of its kernels (`src/device/emulated/registry.h`).
#[cfg(feature = "emulated")]
fn emulated(root: &Path, out: &Path, sources: &BTreeMap<String, String>, stem_of: &BTreeMap<String, String>) {
    let runtime = root.join("src/device/emulated");
    println!("cargo:rerun-if-changed={}", runtime.display());
    let generated = out.join("emulated");
    fs::create_dir_all(&generated).expect("making a directory in OUT_DIR");

    let selftest = fs::read_to_string(runtime.join("selftest.cu")).expect("reading the emulator's own test kernels");
    let mut units: Vec<(&str, Vec<String>)> = vec![("selftest", kernels_in("selftest", &selftest))];
    for stem in sources.keys() {
        units.push((stem, stem_of.iter().filter(|(_, s)| *s == stem).map(|(k, _)| k.clone()).collect()));
    }
    units.retain(|(_, kernels)| !kernels.is_empty());

    let list: String = units.iter().map(|(stem, _)| format!("COUPLET_UNIT_NAMED({stem})\n")).collect();
    fs::write(generated.join("units.inc"), list).expect("writing to OUT_DIR");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).flag("-ffp-contract=off").define("COUPLET_EMULATED", None);
    // Unrolling is a request to nvcc. A frame pointer makes reports readable and costs nothing that matters here.
    build.warnings(true).extra_warnings(true).warnings_into_errors(true).flag("-Wno-unknown-pragmas").flag("-fno-omit-frame-pointer");
    if env::var_os("COUPLET_ASAN").is_some_and(|v| v != "0" && !v.is_empty()) {
        build.flag("-fsanitize=address").flag_if_supported("-fsanitize-sections=couplet_shared_*");
        println!("cargo:rustc-cfg=couplet_asan");
    }
    build.include(&runtime).include(root.join("kernels")).include(&generated);
    for (stem, kernels) in &units {
        let entries: Vec<String> = kernels.iter().map(|k| format!("    COUPLET_KERNEL({stem}, {k})")).collect();
        let unit = format!(
            "#include \"registry.h\"\n#define COUPLET_SHARED_SECTION \"couplet_shared_{stem}\"\nnamespace {{\n#include \"{stem}.cu\"\n}}\nCOUPLET_UNIT({stem},\n{})\n",
            entries.join(",\n")
        );
        let file = generated.join(format!("unit_{stem}.cc"));
        fs::write(&file, unit).expect("writing to OUT_DIR");
        build.file(file);
    }
    build.file(runtime.join("runtime.cc")).file(runtime.join("fiber.cc")).compile("couplet_emulated");
}
