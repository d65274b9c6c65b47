//! A smooth curve through points (x, y): local quadratic regression, evaluated on a few vertices and interpolated between them.
//!
//!   weights    of a vertex v, the q = ⌊span n⌋ nearest points: (1 - (|x - v|/h)³)³, h the distance of the furthest of them
//!   vertices   the ends of x, moved out by 0.005 of its range; then each cell of more than ⌊0.2 span n⌋ points is cut at its median
//!   between    the cubic that has the regressions' values and slopes at both ends
//!   cost       n for each vertex, of which there are about 2 / (0.2 span), whatever n
//!   source     Cleveland, Devlin, Grosse 1988; Cleveland and Grosse 1991 (the vertices and the interpolation)

/// Share of `span` that the points of a cell may be.
const CELL: f64 = 0.2;
/// How far the ends are moved out, of the range.
const MARGIN: f64 = 0.005;

/// Value and slope of the curve at a place.
struct Vertex {
    at: f64,
    value: f64,
    slope: f64,
}

/// The curve at each of the x. `span` is the share of the points that decide at a place. Fewer than 3 points are their own curve.
#[track_caller]
pub fn loess(x: &[f64], y: &[f64], span: f64) -> Vec<f64> {
    assert_eq!(x.len(), y.len(), "loess: as many y as x");
    let n = x.len();
    if n < 3 {
        return y.to_vec();
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]).then(a.cmp(&b)));
    let sorted: Vec<f64> = order.iter().map(|&i| x[i]).collect();
    let of: Vec<f64> = order.iter().map(|&i| y[i]).collect();
    let near = ((n as f64 * span + 1e-5) as usize).clamp(3, n);
    let places = places(&sorted, (n as f64 * span * CELL) as usize);
    let vertices: Vec<Vertex> = places.iter().map(|&at| regression(&sorted, &of, at, near)).collect();
    x.iter().map(|&x| between(&vertices, x)).collect()
}

/// Where the vertices are, ascending.
fn places(x: &[f64], most: usize) -> Vec<f64> {
    let (first, last) = (x[0], x[x.len() - 1]);
    let range = (last - first).max(first.abs().max(last.abs()) * 1e-10 + 1e-30);
    let mut places = vec![first - MARGIN * range, last + MARGIN * range];
    let mut cells = vec![(0, x.len() - 1)];
    while let Some((l, u)) = cells.pop() {
        if u - l + 1 > most.max(1)
            && let Some(m) = median_gap(x, l, u)
        {
            places.push(x[m]);
            cells.extend([(l, m), (m + 1, u)]);
        }
    }
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
}

/// The point of `l..=u` nearest to the middle that is less than the next one: equal points are never parted.
fn median_gap(x: &[f64], l: usize, u: usize) -> Option<usize> {
    let middle = (l + u) / 2;
    let differs = |m: usize| x[m] < x[m + 1];
    // By turns on both sides, and no further than the shorter of them goes: the cell is a leaf then.
    let by_turns = (0..=u - l).flat_map(|off| [middle.checked_add(off), middle.checked_sub(off)]);
    by_turns.map_while(|m| m.filter(|m| (l..u).contains(m))).find(|&m| differs(m))
}

/// The weighted quadratic around `at`: its value and slope there.
fn regression(x: &[f64], y: &[f64], at: f64, near: usize) -> Vertex {
    // The nearest points are a run of the sorted ones.
    let (mut l, mut u) = (0, near);
    while u < x.len() && (x[u] - at).abs() < (x[l] - at).abs() {
        (l, u) = (l + 1, u + 1);
    }
    // Points as far as the furthest come with it: they have no weight, unless all have the same distance.
    let furthest = (x[l] - at).abs().max((x[u - 1] - at).abs());
    while u < x.len() && (x[u] - at).abs() <= furthest {
        u += 1;
    }
    while l > 0 && (x[l - 1] - at).abs() <= furthest {
        l -= 1;
    }
    // Where all of them lie on one place, they alone have weight.
    let h = if furthest > 0.0 { furthest } else { f64::MIN_POSITIVE };
    let one_distance = x[l..u].iter().all(|&x| (x - at).abs() >= furthest);
    let mut m = [0.0; 5];
    let mut r = [0.0; 3];
    for (&x, &y) in x[l..u].iter().zip(&y[l..u]) {
        let d = (x - at) / h;
        let w = if one_distance { 1.0 } else { (1.0 - d.abs().powi(3)).max(0.0).powi(3) };
        let powers = [1.0, d, d * d, d * d * d, d * d * d * d];
        m.iter_mut().zip(powers).for_each(|(m, p)| *m += w * p);
        r.iter_mut().zip(powers).for_each(|(r, p)| *r += w * p * y);
    }
    let [value, slope] = solve(m, r);
    Vertex { at, value, slope: slope / h }
}

/// The first two coefficients of the quadratic whose normal equations have the moments `m` and the right side `r`; of a line, or a constant,
/// where the points are too few to bend.
fn solve(m: [f64; 5], r: [f64; 3]) -> [f64; 2] {
    let mut a = [[m[0], m[1], m[2], r[0]], [m[1], m[2], m[3], r[1]], [m[2], m[3], m[4], r[2]]];
    let mut rank = 0;
    for k in 0..3 {
        if a[k][k] <= 1e-12 * m[0] {
            break;
        }
        rank = k + 1;
        for i in k + 1..3 {
            let by = a[i][k] / a[k][k];
            let pivot = a[k];
            a[i].iter_mut().zip(pivot).for_each(|(x, p)| *x -= by * p);
        }
    }
    let c = if rank > 2 { a[2][3] / a[2][2] } else { 0.0 };
    let b = if rank > 1 { (a[1][3] - a[1][2] * c) / a[1][1] } else { 0.0 };
    let value = if rank > 0 { (a[0][3] - a[0][1] * b - a[0][2] * c) / a[0][0] } else { 0.0 };
    [value, b]
}

/// The curve at x.
fn between(vertices: &[Vertex], x: f64) -> f64 {
    let right = vertices.partition_point(|v| v.at <= x).clamp(1, vertices.len() - 1);
    let (a, b) = (&vertices[right - 1], &vertices[right]);
    let h = b.at - a.at;
    let t = (x - a.at) / h;
    let s = 1.0 - t;
    (1.0 + 2.0 * t) * s * s * a.value + t * t * (3.0 - 2.0 * t) * b.value + h * t * s * (s * a.slope - t * b.slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;

    #[test]
    fn a_quadratic_comes_back_as_it_is() {
        let mut draw = Sequence::new(1, 1, 1);
        let x: Vec<f64> = (0..400).map(|_| f64::from(draw.next_normal())).collect();
        let y: Vec<f64> = x.iter().map(|x| 2.0 - x + 0.5 * x * x).collect();
        let fitted = loess(&x, &y, 0.3);
        // At the ends the interpolation's cubics are quadratics too.
        assert!(fitted.iter().zip(&y).all(|(f, y)| (f - y).abs() < 1e-9));
    }

    #[test]
    fn equal_places_and_few_points_are_taken() {
        let x = [vec![0.0; 50], vec![1.0; 50], vec![2.0; 50]].concat();
        let y: Vec<f64> = (0..150).map(|i| (i % 2) as f64 + x[i]).collect();
        let fitted = loess(&x, &y, 0.3);
        assert!(fitted.iter().zip(&x).all(|(f, x)| (f - x - 0.5).abs() < 1e-3), "{:?} {:?} {:?}", fitted[0], fitted[60], fitted[149]);
        for n in 0..12 {
            let x: Vec<f64> = (0..n).map(|i| i as f64).collect();
            // Too few for a slope in places, never for a value.
            assert!(loess(&x, &x, 0.3).iter().zip(&x).all(|(f, x)| (f - x).abs() < 1.0), "{n}");
        }
    }
}
