//! Where an axis has its marks, and how numbers are written on figures.

/// Round numbers from `low` to `high` in steps of 1, 2 or 5 times a power of ten, about `wanted` of them, and their decimals.
pub fn ticks(low: f64, high: f64, wanted: usize) -> (Vec<f64>, usize) {
    let raw = (high - low) / wanted.max(1) as f64;
    if !raw.is_finite() || raw <= 0.0 {
        return (vec![low], 2);
    }
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= raw * 0.999).unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    ((first..=last).map(|i| i as f64 * step).collect(), decimals)
}

/// A number in three significant digits, with a true minus sign.
pub fn number(x: f64) -> String {
    let text = match x.abs() {
        0.0 => "0".to_string(),
        a if !(1e-3..1e5).contains(&a) => format!("{x:.1e}"),
        a => format!("{x:.*}", (2 - a.log10().floor() as i32).max(0) as usize),
    };
    text.replace('-', "−")
}

/// The same with its sign.
pub fn signed(x: f64) -> String {
    let text = number(x);
    if x > 0.0 { format!("+{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(-0.13, 0.94, 5), (vec![0.0, 0.5], 1));
        assert_eq!(ticks(0.0, 10.0, 5), (vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0], 0));
        assert_eq!(ticks(1.0, 1.0, 5).0, [1.0]);
        let (marks, decimals) = ticks(0.0113, 0.0118, 5);
        assert!(marks.len() >= 4 && decimals == 4, "{marks:?} {decimals}");
    }

    #[test]
    fn numbers_have_three_digits_and_a_true_minus() {
        let said = [0.0, 1.23456, -0.04567, 123.456, -1234.5, 1e-5, 2.5e7].map(number);
        assert_eq!(said, ["0", "1.23", "−0.0457", "123", "−1234", "1.0e−5", "2.5e7"]);
        assert_eq!([signed(0.5), signed(-0.5)], ["+0.500", "−0.500"]);
    }
}
