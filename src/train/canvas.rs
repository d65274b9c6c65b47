//! Images of any size on a canvas whose sides a network can halve: centred, zeros around.
//!
//!   shapes   image [C, H, W], canvas [C, ⌈H/m⌉·m, ⌈W/m⌉·m] for sides that must be multiples of m; an odd row or column of zeros goes
//!            below or to the right

/// Where an image lies on its canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvas {
    /// C, H, W of the image.
    pub image: [usize; 3],
    /// H and W of the canvas.
    pub sides: [usize; 2],
}

impl Canvas {
    /// The smallest with sides that are multiples of `multiple`.
    pub fn of(image: [usize; 3], multiple: usize) -> Canvas {
        Canvas { image, sides: [image[1], image[2]].map(|n| n.next_multiple_of(multiple.max(1))) }
    }

    /// C, H, W of the canvas.
    pub fn shape(&self) -> [usize; 3] {
        [self.image[0], self.sides[0], self.sides[1]]
    }

    /// Pixels of the canvas, over all channels.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether it has no pixels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first pixel of row `y` of channel `c`, in the image and on the canvas.
    fn row(&self, c: usize, y: usize) -> (usize, usize) {
        let ([_, h, w], [height, width]) = (self.image, self.sides);
        ((c * h + y) * w, (c * height + y + (height - h) / 2) * width + (width - w) / 2)
    }

    /// Calls `f` with the ranges of every row, in the image and on the canvas.
    fn rows(&self, mut f: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>)) {
        let [channels, h, w] = self.image;
        for (c, y) in (0..channels).flat_map(|c| (0..h).map(move |y| (c, y))) {
            let (from, to) = self.row(c, y);
            f(from..from + w, to..to + w);
        }
    }

    /// An image onto its canvas.
    pub fn put(&self, image: &[f32], canvas: &mut [f32]) {
        canvas.fill(0.0);
        self.rows(|i, c| canvas[c].copy_from_slice(&image[i]));
    }

    /// The image on a canvas.
    pub fn take(&self, canvas: &[f32], image: &mut [f32]) {
        self.rows(|i, c| image[i].copy_from_slice(&canvas[c]));
    }

    /// Where pixel `at` of the image lies on the canvas.
    pub fn place(&self, at: usize) -> usize {
        let [_, h, w] = self.image;
        self.row(at / (h * w), at / w % h).1 + at % w
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_comes_back_from_the_middle_of_its_canvas() {
        let c = Canvas::of([2, 3, 5], 4);
        assert_eq!((c.shape(), c.len()), ([2, 4, 8], 64));
        let image: Vec<f32> = (1..=30).map(|v| v as f32).collect();
        let (mut canvas, mut back) = (vec![9.0; 64], vec![0.0; 30]);
        c.put(&image, &mut canvas);
        assert_eq!(canvas[..8], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0]);
        assert_eq!(canvas.iter().filter(|&&v| v == 0.0).count(), 34);
        c.take(&canvas, &mut back);
        assert_eq!(back, image);
        assert!((0..30).all(|i| canvas[c.place(i)] == image[i]));
        assert_eq!(Canvas::of([1, 64, 32], 32).shape(), [1, 64, 32], "what fits stays");
    }
}
