//! Features that go together: graph with an edge where |Pearson's r| is above 0.7, connected components, and of each component the
//! feature with the most edges as its representative (the first of several).

use crate::metrics::Matrix;

/// An edge wants more than this.
const EDGE: f64 = 0.7;

/// A feature's component and whether it stands for it. Components are numbered by their first features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// From 0.
    pub component: usize,
    /// Whether it is the representative.
    pub representative: bool,
}

/// The components of the columns of `values`, cells x features; a feature that does not vary is alone. Missing values count as the mean.
pub fn components(values: Matrix<'_>) -> Vec<Member> {
    let d = values.cols();
    let standard: Vec<Vec<f32>> = (0..d).map(|f| standardised(values, f)).collect();
    let r = |a: usize, b: usize| standard[a].iter().zip(&standard[b]).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let (mut parent, mut degree): (Vec<usize>, Vec<usize>) = ((0..d).collect(), vec![0; d]);
    for a in 0..d {
        for b in a + 1..d {
            if r(a, b).abs() > EDGE {
                degree[a] += 1;
                degree[b] += 1;
                let (one, other) = (root(&mut parent, a), root(&mut parent, b));
                parent[one.max(other)] = one.min(other);
            }
        }
    }
    let roots: Vec<usize> = (0..d).map(|f| root(&mut parent, f)).collect();
    let mut firsts = roots.clone();
    firsts.sort_unstable();
    firsts.dedup();
    let stands_for = |of: usize| (0..d).filter(|&f| roots[f] == of).max_by_key(|&f| (degree[f], d - f));
    let representatives: Vec<Option<usize>> = firsts.iter().map(|&of| stands_for(of)).collect();
    let member = |f: usize| {
        let component = firsts.binary_search(&roots[f]).unwrap_or_default();
        Member { component, representative: representatives[component] == Some(f) }
    };
    (0..d).map(member).collect()
}

fn root(parent: &mut [usize], mut f: usize) -> usize {
    while parent[f] != f {
        parent[f] = parent[parent[f]];
        f = parent[f];
    }
    f
}

/// A column at mean 0 and length 1, or zeros.
fn standardised(values: Matrix<'_>, f: usize) -> Vec<f32> {
    let column = || (0..values.rows()).map(|r| f64::from(values.row(r)[f]));
    let n = column().filter(|v| !v.is_nan()).count().max(1) as f64;
    let mean = column().filter(|v| !v.is_nan()).sum::<f64>() / n;
    let square: f64 = column().filter(|v| !v.is_nan()).map(|v| (v - mean).powi(2)).sum();
    let over = if square > 1e-12 * n * mean * mean && square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
    column().map(|v| if v.is_nan() { 0.0 } else { ((v - mean) * over) as f32 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    #[test]
    fn a_chain_is_one_component_and_its_middle_stands_for_it() {
        // b = a + c with r = 0.707 to each, made a little more; a and c are independent; d is alone, e constant, f is -d.
        let mut draw = Sequence::new(2, 1, 0);
        let rows: Vec<f32> = (0..3000)
            .flat_map(|_| {
                let [a, c, d] = std::array::from_fn(|_| draw.next_normal());
                [a, d, 1.1 * a + c + 0.3 * (a + c), c + 0.35 * a, 7.0, -d]
            })
            .collect();
        let members = components(Matrix::new(&rows, 3000, 6));
        assert_eq!(members.iter().map(|m| m.component).collect::<Vec<_>>(), [0, 1, 0, 0, 2, 1]);
        assert_eq!(members.iter().map(|m| m.representative).collect::<Vec<_>>(), [false, true, true, false, true, false]);
    }
}
