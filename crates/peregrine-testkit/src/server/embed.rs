//! Vectors for the embedding endpoints: a function of the text and the number of dimensions alone, of unit
//! length. Equal texts are equal, different texts are almost orthogonal; there is no meaning in them.

/// A vector of unit length.
pub(crate) fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut values: Vec<f32> = (0..dimensions.max(1) as u64)
        .map(|index| {
            // The upper 24 bits fit an f32 exactly; the result lies in [-1, 1).
            (hash(text.as_bytes(), index) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect();
    let norm = values.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 {
        values.iter_mut().for_each(|x| *x /= norm);
    }
    values
}

/// FNV-1a over the bytes, then the finisher of SplitMix64 with an index mixed in.
pub(crate) fn hash(bytes: &[u8], index: u64) -> u64 {
    let fnv = bytes.iter().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3)
    });
    let mut z = fnv.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_unit_length_and_depend_on_the_text() {
        let (a, b) = (vector("a", 32), vector("b", 32));
        assert_eq!(a, vector("a", 32));
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| p * q).sum::<f32>();
        assert!((dot(&a, &a) - 1.0).abs() < 1e-5);
        assert!(dot(&a, &b).abs() < 0.7, "{}", dot(&a, &b));
        assert_eq!(vector("", 0).len(), 1);
    }
}
