//! The noise of a camera's sensor, without which still footage encodes to nothing and real cameras' streams do not.

/// More than the longest row, so that rows differ.
const TABLE: usize = 1 << 16;

/// Gaussian noise of one standard deviation, for frames one after the other. The same seed makes the same noise.
pub(super) struct Noise {
    table: Vec<i8>,
    random: fastrand::Rng,
}

impl Noise {
    /// `deviation` in steps of 8-bit luma.
    pub(super) fn new(deviation: f32) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let table = (0..TABLE)
            .map(|_| {
                // Box and Muller, 1958.
                let (u, v) = (1.0 - random.f64(), random.f64());
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                (normal * f64::from(deviation)).round().clamp(-127.0, 127.0) as i8
            })
            .collect();
        Self { table, random }
    }

    /// Adds noise to the luma rows of a frame.
    pub(super) fn add(&mut self, luma: &mut [u8], stride: usize) {
        for row in luma.chunks_mut(stride.clamp(1, TABLE / 2)) {
            let from = self.random.usize(..TABLE - row.len());
            for (pixel, noise) in row.iter_mut().zip(&self.table[from..]) {
                *pixel = pixel.saturating_add_signed(*noise);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_deviation_and_no_bias() {
        let mut luma = vec![128; 64 * 1000];
        Noise::new(3.0).add(&mut luma, 1000);
        let mean = luma.iter().map(|pixel| f64::from(*pixel)).sum::<f64>() / luma.len() as f64;
        let variance =
            luma.iter().map(|pixel| (f64::from(*pixel) - mean).powi(2)).sum::<f64>() / luma.len() as f64;
        assert!((mean - 128.0).abs() < 0.2, "mean {mean}");
        assert!((variance.sqrt() - 3.0).abs() < 0.2, "deviation {}", variance.sqrt());
        assert_ne!(luma[..1000], luma[1000..2000]);
    }
}
