//! What this machine can compute on: the rows of `couplet devices`.

/// One device: what to type after `--device`, and whether it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// `cpu`, `cuda:0`, `emulated`
    pub name: String,
    /// What it is, or why it cannot be used and what to do.
    pub answers: Result<String, String>,
}

/// Asks every device there could be. Each GPU is opened as for a run, so one that answers has its kernels too.
pub fn probe() -> Vec<Probed> {
    let mut found = vec![Probed { name: "cpu".into(), answers: Ok(cpu()) }];
    found.extend(gpus());
    found.push(Probed { name: "emulated".into(), answers: emulated() });
    found
}

fn cpu() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let plural = if threads == 1 { "" } else { "s" };
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model(&text)).map_or_else(String::new, |m| m + ", ");
    format!("{model}{threads} thread{plural}, {}", vectors())
}

/// The processor's name in Linux's description of it.
fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|l| l.starts_with("model name"))?;
    let name = line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" ");
    (!name.is_empty()).then_some(name)
}

/// The widest vectors that the matrix product uses here.
fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            "AVX-512"
        } else if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            "AVX2"
        } else {
            "SSE2"
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        "NEON"
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "no vector instructions known"
    }
}

#[cfg(feature = "cuda")]
fn gpus() -> Vec<Probed> {
    use super::cuda::{Cuda, count};
    use crate::error::Error;
    // The row names the device already.
    let why = |e: Error| match e {
        Error::Device { message, .. } => message,
        other => other.to_string(),
    };
    // Where there is none, one row says why.
    match count() {
        Err(e) => vec![Probed { name: "cuda:0".into(), answers: Err(why(e)) }],
        Ok(n) => {
            (0..n.max(1)).map(|i| Probed { name: format!("cuda:{i}"), answers: Cuda::new(i).map(|c| c.report()).map_err(why) }).collect()
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn gpus() -> Vec<Probed> {
    vec![Probed { name: "cuda:0".into(), answers: Err("this build has no CUDA: build with --features cuda".into()) }]
}

#[cfg(feature = "emulated")]
fn emulated() -> Result<String, String> {
    Ok("the CUDA kernels on the processor, slowly: for tests".into())
}

#[cfg(not(feature = "emulated"))]
fn emulated() -> Result<String, String> {
    Err("this build has no emulated device, which is for tests: build with --features emulated".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_answers_always_and_every_row_says_something() {
        let rows = probe();
        assert_eq!((rows[0].name.as_str(), rows[0].answers.is_ok()), ("cpu", true));
        let names: Vec<&str> = rows.iter().map(|r| r.name.as_str()).collect();
        assert!(names.contains(&"cuda:0") && names.contains(&"emulated"), "{names:?}");
        for row in &rows {
            let text = row.answers.as_ref().unwrap_or_else(|why| why);
            assert!(!text.is_empty() && !text.contains('\n') && !text.starts_with("device "), "{row:?}");
        }
    }

    #[test]
    fn the_processors_name_is_read_from_its_description() {
        assert_eq!(model("processor\t: 0\nmodel name\t: Some  CPU @ 2.00GHz\nflags: a\n").as_deref(), Some("Some CPU @ 2.00GHz"));
        assert_eq!(model("processor : 0\n"), None);
        assert_eq!(model("model name :\n"), None);
    }
}
