//! Pieces of memory, carved into blocks and joined again.

use std::sync::Arc;

use super::map::{Map, Refused};
use super::runs::{EXACT, NONE, Runs};

/// The free runs of some pieces of memory, `P` says of which.
#[derive(Debug)]
pub(super) struct Carver<P> {
    pieces: Vec<Option<Piece<P>>>,
    runs: Runs,
    /// For each length the idle blocks that have it: the name of the first, whose tag is that of
    /// the next, and so on to `NONE`.
    idle: [u32; EXACT as usize],
    shift: u32,
    /// Pieces with nothing handed out.
    empty: usize,
}

/// A block: `piece << shift | granule`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Name(u32);

#[derive(Debug)]
struct Piece<P> {
    map: Arc<Map>,
    /// Blocks handed out.
    live: u32,
    place: P,
}

impl<P> Carver<P> {
    /// For pieces of `1 << shift` granules; of any size, if no block is put by.
    pub(super) fn new(shift: u32) -> Carver<P> {
        let idle = [NONE; EXACT as usize];
        Carver { pieces: Vec::new(), runs: Runs::new(), idle, shift, empty: 0 }
    }

    /// Bytes of memory that the books take, but for the maps.
    pub(super) fn bytes(&self) -> usize {
        self.runs.bytes() + self.pieces.capacity() * size_of::<Option<Piece<P>>>()
    }

    /// A piece with nothing handed out: its number. Refused if there are as many as names can
    /// tell apart.
    pub(super) fn add(&mut self, map: Arc<Map>, place: P) -> Result<u32, P> {
        let unused = self.pieces.iter().position(Option::is_none);
        let piece = unused.unwrap_or(self.pieces.len());
        if piece >= (NONE >> self.shift) as usize {
            return Err(place);
        }
        map.set_tag(0, self.runs.insert(piece as u32, 0, map.len() as u32));
        self.empty += 1;
        let new = Some(Piece { map, live: 0, place });
        match self.pieces.get_mut(piece) {
            Some(old) => *old = new,
            None => self.pieces.push(new),
        }
        Ok(piece as u32)
    }

    /// Takes a piece out with nothing handed out. [`Carver::flush`] was called.
    pub(super) fn remove(&mut self, piece: u32) -> Option<P> {
        let slot = self.pieces.get_mut(piece as usize)?;
        let Piece { map, place, .. } = slot.take_if(|piece| piece.live == 0)?;
        self.runs.remove(map.tag(0));
        self.empty -= 1;
        Some(place)
    }

    /// Pieces with nothing handed out.
    #[inline(always)]
    pub(super) fn empty(&self) -> usize {
        self.empty
    }

    /// Their numbers.
    pub(super) fn empty_pieces(&self) -> Vec<u32> {
        let pieces = self.pieces.iter().zip(0..);
        let empty = |piece: &Option<Piece<P>>| piece.as_ref().is_some_and(|p| p.live == 0);
        pieces.filter(|(piece, _)| empty(piece)).map(|(_, number)| number).collect()
    }

    pub(super) fn map(&self, piece: u32) -> Option<Arc<Map>> {
        Some(self.pieces.get(piece as usize)?.as_ref()?.map.clone())
    }

    pub(super) fn place(&self, piece: u32) -> Option<&P> {
        Some(&self.pieces.get(piece as usize)?.as_ref()?.place)
    }

    #[inline(always)]
    pub(super) fn name(&self, piece: u32, start: usize) -> Name {
        Name(piece << self.shift | start as u32)
    }

    #[inline(always)]
    pub(super) fn piece_of(&self, name: Name) -> u32 {
        name.0 >> self.shift
    }

    #[inline(always)]
    pub(super) fn start_of(&self, name: Name) -> usize {
        (name.0 & ((1 << self.shift) - 1)) as usize
    }

    /// A block of `len` granules that was put by: its name, its piece, where it begins there.
    #[inline(always)]
    pub(super) fn take_up(&mut self, len: usize) -> Option<(Name, &P, usize)> {
        let name = Name(*self.idle.get(len.wrapping_sub(1))?);
        let start = self.start_of(name);
        // There is no such piece if it is `NONE`.
        let number = self.piece_of(name) as usize;
        let piece = self.pieces.get_mut(number)?.as_mut()?;
        self.idle[len - 1] = piece.map.take_up(start);
        self.empty -= usize::from(piece.live == 0);
        piece.live += 1;
        Some((name, &piece.place, start))
    }

    /// Puts a block by that is handed out, `len` granules long, for the next that is as long.
    /// Whether its piece has nothing handed out now; none if blocks as long are not put by.
    #[inline(always)]
    pub(super) fn put_by(&mut self, name: Name, len: usize) -> Option<bool> {
        let (number, start) = (self.piece_of(name) as usize, self.start_of(name));
        let first = self.idle.get_mut(len.wrapping_sub(1))?;
        let piece = self.pieces.get_mut(number)?.as_mut()?;
        piece.map.put_by(start, std::mem::replace(first, name.0));
        piece.live -= 1;
        self.empty += usize::from(piece.live == 0);
        Some(piece.live == 0)
    }

    /// Puts what is idle among the free runs.
    pub(super) fn flush(&mut self) {
        for len in 1..=EXACT {
            let first = &mut self.idle[len as usize - 1];
            let mut name = Name(std::mem::replace(first, NONE));
            while name.0 != NONE {
                let (number, start) = (self.piece_of(name), self.start_of(name));
                let Some(Some(piece)) = self.pieces.get(number as usize) else { break };
                name = Name(piece.map.take_up(start));
                self.join(number, start, len as usize);
            }
        }
    }

    /// A block of `len` granules out of a free run: its name, its piece, where it begins there.
    #[inline(always)]
    pub(super) fn take(&mut self, len: usize) -> Option<(Name, &P, usize)> {
        let run = self.runs.find(u32::try_from(len).ok()?)?;
        let free = self.runs.get(run);
        let start = free.start as usize;
        let name = self.name(free.piece, start);
        let piece = self.pieces.get_mut(free.piece as usize)?.as_mut()?;
        piece.map.hand_out(start);
        self.empty -= usize::from(piece.live == 0);
        piece.live += 1;
        if free.len as usize == len {
            self.runs.remove(run);
        } else {
            piece.map.cut(start + len);
            piece.map.set_tag(start + len, run);
            self.runs.change(run, (start + len) as u32, free.len - len as u32);
        }
        Some((name, &piece.place, start))
    }

    /// Puts a block among the free runs that is handed out, `len` granules long. Whether its
    /// piece has nothing handed out now.
    pub(super) fn give(&mut self, piece: u32, start: usize, len: usize) -> bool {
        self.join(piece, start, len);
        let Some(Some(piece)) = self.pieces.get_mut(piece as usize) else { return false };
        piece.live -= 1;
        self.empty += usize::from(piece.live == 0);
        piece.live == 0
    }

    /// Makes a run a free one, with those beside it.
    #[inline(never)]
    fn join(&mut self, piece: u32, start: usize, len: usize) {
        let Some(Some(Piece { map, .. })) = self.pieces.get(piece as usize) else { return };
        map.take_back(start);
        let end = start + len;
        let after = map.is_free(end).then(|| map.tag(end));
        let mut whole = len as u32;
        if let Some(after) = after {
            map.join(end);
            whole += self.runs.get(after).len;
        }
        match (map.free_before(start), after) {
            (Some(before), after) => {
                map.join(start);
                if let Some(after) = after {
                    self.runs.remove(after);
                }
                whole += (start - before) as u32;
                self.runs.change(map.tag(before), before as u32, whole);
            }
            (None, Some(after)) => {
                self.runs.change(after, start as u32, whole);
                map.set_tag(start, after);
            }
            (None, None) => map.set_tag(start, self.runs.insert(piece, start as u32, whole)),
        }
    }

    /// Keeps `len` granules of a block that has more.
    pub(super) fn shrink(&mut self, piece: u32, start: usize, len: usize) -> Result<(), Refused> {
        let Some(Some(Piece { map, .. })) = self.pieces.get(piece as usize) else {
            return Err(Refused::NotLive);
        };
        let old = map.check(start)?;
        if len < old {
            map.cut(start + len);
            self.join(piece, start + len, old - len);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::map::{Map, Refused, Run};
    use super::{Carver, EXACT};

    fn carver(pieces: u32, len: usize) -> Carver<u32> {
        assert!(len.is_power_of_two());
        let mut carver = Carver::new(len.trailing_zeros());
        for piece in 0..pieces {
            assert_eq!(carver.add(Arc::new(Map::new(len)), piece), Ok(piece));
        }
        carver
    }

    fn take(carver: &mut Carver<u32>, len: usize) -> Option<(u32, usize)> {
        carver.take(len).map(|(_, &piece, start)| (piece, start))
    }

    fn check(carver: &Carver<u32>, piece: u32, start: usize) -> Result<usize, Refused> {
        carver.map(piece).unwrap().check(start)
    }

    /// Whether the piece is empty then.
    fn give(carver: &mut Carver<u32>, piece: u32, start: usize) -> Result<bool, Refused> {
        let len = check(carver, piece, start)?;
        Ok(carver.give(piece, start, len))
    }

    fn put_by(carver: &mut Carver<u32>, piece: u32, start: usize, len: usize) -> Option<bool> {
        carver.put_by(carver.name(piece, start), len)
    }

    fn take_up(carver: &mut Carver<u32>, len: usize) -> Option<(u32, usize)> {
        carver.take_up(len).map(|(_, &piece, start)| (piece, start))
    }

    /// The blocks of jit-allocator's defect: 31, 1 and 1 granules, the second given back, then
    /// 2 granules, which it places over the third.
    #[test]
    fn a_block_goes_only_where_it_fits() {
        let mut carver = carver(1, 1024);
        let starts: Vec<_> = [31, 1, 1].map(|len| take(&mut carver, len).unwrap().1).into();
        assert_eq!(starts, [0, 31, 32]);
        give(&mut carver, 0, 31).unwrap();
        assert_eq!(take(&mut carver, 2), Some((0, 33)));
        assert_eq!(take(&mut carver, 1), Some((0, 31)));
    }

    #[test]
    fn runs_join_with_both_neighbours() {
        let mut carver = carver(1, 64);
        for _ in 0..4 {
            take(&mut carver, 16).unwrap();
        }
        assert_eq!(take(&mut carver, 1), None);
        assert!(!give(&mut carver, 0, 0).unwrap());
        assert!(!give(&mut carver, 0, 32).unwrap());
        assert_eq!(take(&mut carver, 17), None);
        assert!(!give(&mut carver, 0, 16).unwrap());
        assert_eq!(carver.map(0).unwrap().run(40), Run { start: 0, len: 48, live: false });
        assert!(give(&mut carver, 0, 48).unwrap());
        assert_eq!((carver.empty(), carver.empty_pieces()), (1, vec![0]));
        assert_eq!(carver.remove(0), Some(0));
        assert_eq!((carver.empty(), take(&mut carver, 1)), (0, None));
    }

    #[test]
    fn what_is_no_live_block_is_refused() {
        let mut carver = carver(1, 64);
        take(&mut carver, 8).unwrap();
        take(&mut carver, 8).unwrap();
        assert_eq!(give(&mut carver, 0, 3), Err(Refused::Interior(0)));
        give(&mut carver, 0, 0).unwrap();
        for at in [0, 3] {
            assert_eq!(give(&mut carver, 0, at), Err(Refused::NotLive));
        }
        assert_eq!(give(&mut carver, 0, 20), Err(Refused::NotLive));
        assert_eq!(carver.shrink(9, 0, 1), Err(Refused::NotLive));
        assert_eq!(carver.remove(0), None, "a block is live in it");
        let map = carver.map(0).unwrap();
        map.give_back(8).unwrap();
        assert_eq!(map.give_back(8), Err(Refused::NotLive));
        assert_eq!(give(&mut carver, 0, 8), Err(Refused::NotLive));
        map.accept(8);
        assert!(give(&mut carver, 0, 8).unwrap());
    }

    #[test]
    fn a_block_that_was_put_by_is_had_again_whole() {
        let mut carver = carver(1, 64);
        for len in [4, 4, 56] {
            take(&mut carver, len).unwrap();
        }
        assert_eq!(put_by(&mut carver, 0, 0, 4), Some(false));
        assert_eq!(put_by(&mut carver, 0, 4, 4), Some(false));
        assert_eq!(check(&carver, 0, 4), Err(Refused::NotLive));
        assert_eq!(check(&carver, 0, 6), Err(Refused::NotLive));
        assert_eq!((take(&mut carver, 4), take(&mut carver, 8)), (None, None), "no free run");
        let last = take_up(&mut carver, 4);
        assert_eq!((last, check(&carver, 0, 4)), (Some((0, 4)), Ok(4)));
        put_by(&mut carver, 0, 4, 4);
        carver.flush();
        assert_eq!(take_up(&mut carver, 4), None);
        assert_eq!(take(&mut carver, 8), Some((0, 0)), "joined");
        give(&mut carver, 0, 0).unwrap();
        assert_eq!((put_by(&mut carver, 0, 8, 56), carver.empty()), (Some(true), 1));
        assert_eq!((take_up(&mut carver, 56), carver.empty()), (Some((0, 8)), 0));
    }

    #[test]
    fn the_books_agree_with_a_model() {
        let (pieces, len) = (3, 256);
        let mut carver = carver(pieces, len);
        let mut model = BTreeMap::new();
        // What was put by, in that order, for each length.
        let mut idle: BTreeMap<usize, Vec<(u32, usize)>> = BTreeMap::new();
        let mut x = 7u64;
        let steps = if cfg!(miri) { 2_000 } else { 200_000 };
        for step in 0..steps {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (kind, size) = (x >> 60, 1 + (x >> 33) as usize % 80);
            let nth = (x >> 20) as usize % model.len().max(1);
            let picked = model.iter().nth(nth).map(|(&at, &size)| (at, size));
            match (kind, picked) {
                (0..9, _) => {
                    let again = take_up(&mut carver, size);
                    assert_eq!(again, idle.get_mut(&size).and_then(Vec::pop), "step {step}");
                    if let Some(at) = again.or_else(|| take(&mut carver, size)) {
                        assert_eq!(model.insert(at, size), None, "step {step}");
                    }
                }
                (9..14, Some(((piece, start), size))) => {
                    model.remove(&(piece, start));
                    let none = !model.keys().any(|&(other, _)| other == piece);
                    if x >> 10 & 1 == 0 {
                        assert_eq!(give(&mut carver, piece, start), Ok(none), "step {step}");
                    } else if let Some(empty) = put_by(&mut carver, piece, start, size) {
                        assert_eq!(empty, none, "step {step}");
                        idle.entry(size).or_default().push((piece, start));
                    } else {
                        assert!(size > EXACT as usize);
                        assert_eq!(give(&mut carver, piece, start), Ok(none), "step {step}");
                    }
                }
                (14, Some(((piece, start), old))) => {
                    let size = size.min(old);
                    carver.shrink(piece, start, size).unwrap();
                    model.insert((piece, start), size);
                }
                (15, _) if x >> 10 & 15 == 0 => {
                    carver.flush();
                    idle.clear();
                }
                _ => {}
            }
            if step % 64 == 0 || cfg!(miri) {
                let count = idle.values().map(Vec::len).sum();
                agree(&carver, &model, pieces, len, count);
            }
        }
        for &(piece, start) in model.keys() {
            give(&mut carver, piece, start).unwrap();
        }
        carver.flush();
        for piece in 0..pieces {
            assert_eq!(carver.remove(piece), Some(piece));
        }
    }

    /// With `idle` blocks put by.
    fn agree(
        carver: &Carver<u32>,
        model: &BTreeMap<(u32, usize), usize>,
        pieces: u32,
        len: usize,
        idle: usize,
    ) {
        let mut empty = 0;
        for piece in 0..pieces {
            let map = carver.map(piece).unwrap();
            let (mut at, mut free_before, mut live) = (0, false, 0);
            for run in map.runs() {
                assert_eq!(run.start, at);
                assert_eq!(model.get(&(piece, at)), run.live.then_some(&run.len));
                assert!(run.live || !free_before, "free runs side by side");
                if !run.live && idle == 0 {
                    let free = carver.runs.get(map.tag(at));
                    let whole = (free.piece, free.start as usize, free.len as usize);
                    assert_eq!(whole, (piece, at, run.len));
                }
                (free_before, live) = (!run.live, live + usize::from(run.live));
                at += run.len;
            }
            assert_eq!(at, len);
            assert_eq!(carver.pieces[piece as usize].as_ref().unwrap().live as usize, live);
            empty += usize::from(live == 0);
        }
        assert_eq!(carver.empty(), empty);
        assert_eq!(carver.empty_pieces().len(), empty);
    }
}
