//! Bodies that are made while they are sent: a beginning, a unit that repeats, an end; plain or compressed.
//!
//! The compressed form repeats too: a raw deflate block that ends with a full flush is byte-aligned and
//! refers to nothing before it, so the same compressed bytes stand for every repetition, and the checksum of
//! the whole is combined from the checksums of the parts. A bomb of 1 GiB costs the work and the memory of
//! compressing one unit.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::GzEncoder;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes of filler in one unit.
const UNIT: u64 = 64 * 1024;
/// Units that one compressed block stands for.
const BLOCK: u64 = 16;

/// A body that repeats.
#[derive(Clone, Debug)]
pub(crate) struct Repeat {
    prefix: Bytes,
    unit: Bytes,
    /// How often; `None` is for ever.
    times: Option<u64>,
    suffix: Bytes,
}

impl Repeat {
    /// `prefix`, then filler, then `suffix`: together as many bytes as `total`, or `prefix` and `suffix`
    /// alone if that is more already. Without a total the filler never ends.
    pub(crate) fn filler(prefix: &[u8], suffix: &[u8], total: Option<u64>) -> Self {
        let filler = total.map(|total| total.saturating_sub((prefix.len() + suffix.len()) as u64));
        let mut begin = prefix.to_vec();
        begin.resize(begin.len() + (filler.unwrap_or(0) % UNIT) as usize, b'a');
        Self {
            prefix: begin.into(),
            unit: vec![b'a'; UNIT as usize].into(),
            times: filler.map(|filler| filler / UNIT),
            suffix: Bytes::copy_from_slice(suffix),
        }
    }

    /// `prefix`, then as many frames as are needed for at least `total` bytes, then `suffix`. Without a
    /// total the frames never end.
    pub(crate) fn frames(prefix: Bytes, frame: &[u8], suffix: Bytes, total: Option<u64>) -> Self {
        let per_unit = (UNIT as usize / frame.len().max(1)).max(1);
        let unit = Bytes::from(frame.repeat(per_unit));
        let rest = total.map(|total| total.saturating_sub((prefix.len() + suffix.len()) as u64));
        let times = rest.map(|rest| rest.div_ceil(unit.len().max(1) as u64));
        Self {
            prefix,
            unit,
            times,
            suffix,
        }
    }

    /// The number of bytes, unless there is no end.
    pub(crate) fn len(&self) -> Option<u64> {
        let middle = self.times?.saturating_mul(self.unit.len() as u64);
        Some(middle.saturating_add((self.prefix.len() + self.suffix.len()) as u64))
    }

    /// The parts in order.
    pub(crate) fn parts(self) -> impl Iterator<Item = Bytes> + Send {
        let Self {
            prefix,
            unit,
            times,
            suffix,
        } = self;
        let middle = (0..times.unwrap_or(u64::MAX)).map(move |_| unit.clone());
        std::iter::once(prefix)
            .chain(middle)
            .chain(std::iter::once(suffix))
            .filter(|part| !part.is_empty())
    }

    /// The parts of the gzip form, compressed `layers` times.
    pub(crate) fn gzip(self, layers: u8) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let mut parts: Box<dyn Iterator<Item = Bytes> + Send> = Box::new(gzip_repeat(self));
        for _ in 1..layers {
            parts = Box::new(gzip_over(parts));
        }
        parts
    }
}

/// The first layer, where repetition is compressed once.
fn gzip_repeat(repeat: Repeat) -> impl Iterator<Item = Bytes> + Send {
    let Repeat {
        prefix,
        unit,
        times,
        suffix,
    } = repeat;
    let times = times.unwrap_or(u64::MAX);
    let (blocks, singles) = (times / BLOCK, times % BLOCK);

    let mut head = vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];
    head.extend_from_slice(&deflate(&prefix, FlushCompress::Full));
    let single = Bytes::from(deflate(&unit, FlushCompress::Full));
    let block = Bytes::from(deflate(&unit.repeat(BLOCK as usize), FlushCompress::Full));
    let mut tail = deflate(&suffix, FlushCompress::Finish);

    let crc_of = |bytes: &[u8]| {
        let mut crc = Crc::new();
        crc.update(bytes);
        crc
    };
    let mut crc = crc_of(&prefix);
    let power = crc_of(&unit);
    repeat_crc(&mut crc, power, times);
    crc.combine(&crc_of(&suffix));
    tail.extend_from_slice(&crc.sum().to_le_bytes());
    tail.extend_from_slice(&crc.amount().to_le_bytes());

    std::iter::once(Bytes::from(head))
        .chain((0..blocks).map(move |_| block.clone()))
        .chain((0..singles).map(move |_| single.clone()))
        .chain(std::iter::once(Bytes::from(tail)))
}

/// Adds the checksum of a unit `times` times, by squaring.
fn repeat_crc(crc: &mut Crc, unit: Crc, mut times: u64) {
    let mut power = unit;
    while times > 0 {
        if times & 1 == 1 {
            crc.combine(&power);
        }
        let mut doubled = Crc::new();
        doubled.combine(&power);
        doubled.combine(&power);
        power = doubled;
        times >>= 1;
    }
}

/// Raw deflate of one part on its own, ended by a flush.
fn deflate(input: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(4096 + input.len() / 64);
    loop {
        let consumed = usize::try_from(compress.total_in())
            .unwrap_or(usize::MAX)
            .min(input.len());
        let status = compress.compress_vec(&input[consumed..], &mut out, flush);
        let consumed = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let done = match (flush, status) {
            (_, Ok(Status::StreamEnd)) | (_, Err(_)) => true,
            (FlushCompress::Finish, _) => false,
            // A flush is complete when everything was read and there was room left for all of the output.
            _ => consumed >= input.len() && out.len() < out.capacity(),
        };
        if done {
            return out;
        }
        out.reserve(4096 + out.len());
    }
}

/// A further layer, compressed as it comes.
fn gzip_over(mut inner: impl Iterator<Item = Bytes> + Send) -> impl Iterator<Item = Bytes> + Send {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    std::iter::from_fn(move || {
        loop {
            let Some(part) = inner.next() else {
                // Writing into a vector cannot fail.
                return encoder.take().and_then(|e| e.finish().ok()).map(Bytes::from);
            };
            let encoder = encoder.as_mut()?;
            encoder.write_all(&part).ok()?;
            let out = encoder.get_mut();
            if out.len() >= UNIT as usize {
                return Some(Bytes::from(std::mem::take(out)));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn collect(parts: impl Iterator<Item = Bytes>) -> Vec<u8> {
        parts.flat_map(|part| part.to_vec()).collect()
    }

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn filler_has_exactly_the_length_asked_for() {
        for total in [0_u64, 10, 65_536, 65_541, 1_000_003] {
            let repeat = Repeat::filler(b"{\"t\":\"", b"\"}", Some(total));
            assert_eq!(repeat.len(), Some(total.max(8)), "{total}");
            let bytes = collect(repeat.parts());
            assert_eq!(bytes.len() as u64, total.max(8));
            assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        }
        assert_eq!(Repeat::filler(b"", b"", None).len(), None);
    }

    #[test]
    fn the_compressed_form_is_one_valid_member_with_the_right_checksum() {
        for total in [8_u64, 70_000, 3 * 1024 * 1024 + 17] {
            let repeat = Repeat::filler(b"{\"t\":\"", b"\"}", Some(total));
            let plain = collect(repeat.clone().parts());
            let zipped = collect(repeat.clone().gzip(1));
            assert_eq!(gunzip(&zipped), plain, "{total}");
            assert_eq!(gunzip(&gunzip(&collect(repeat.gzip(2)))), plain, "{total}");
        }
    }

    #[test]
    fn a_bomb_is_about_a_thousandth_of_what_it_becomes() {
        let wire = collect(Repeat::filler(b"", b"", Some(64 * 1024 * 1024)).gzip(1)).len();
        assert!(wire < 128 * 1024, "{wire}");
        let twice = collect(Repeat::filler(b"", b"", Some(64 * 1024 * 1024)).gzip(2)).len();
        assert!(twice < 8 * 1024, "{twice}");
    }

    #[test]
    fn repeated_frames_reach_the_total() {
        let repeat = Repeat::frames(
            Bytes::from_static(b"<"),
            b"frame\n",
            Bytes::from_static(b">"),
            Some(200_000),
        );
        let bytes = collect(repeat.parts());
        assert!(
            bytes.len() >= 200_000 && bytes.starts_with(b"<frame\nframe\n") && bytes.ends_with(b"frame\n>")
        );
    }
}
