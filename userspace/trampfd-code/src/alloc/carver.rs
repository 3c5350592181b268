//! Pieces of memory, carved into blocks and joined again.

use std::sync::Arc;

use super::map::{Map, Refused};
use super::runs::Runs;

/// The free runs of some pieces of memory, `P` says of which.
#[derive(Debug)]
pub(super) struct Carver<P> {
    pieces: Vec<Option<Piece<P>>>,
    runs: Runs,
    last: Last,
    /// Pieces with nothing handed out.
    empty: usize,
}

/// The block that was given back last. It is among the free runs only when something else is
/// done than handing out as much again. Of 0 granules if there is none.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    piece: u32,
    start: u32,
    len: u32,
}

#[derive(Debug)]
struct Piece<P> {
    map: Arc<Map>,
    place: P,
}

impl<P> Carver<P> {
    pub(super) fn new() -> Carver<P> {
        Carver { pieces: Vec::new(), runs: Runs::new(), last: Last::default(), empty: 0 }
    }

    /// Bytes of memory that the books take, but for the maps.
    pub(super) fn bytes(&self) -> usize {
        self.runs.bytes() + self.pieces.capacity() * size_of::<Option<Piece<P>>>()
    }

    /// A piece with nothing handed out: its number.
    pub(super) fn add(&mut self, map: Arc<Map>, place: P) -> u32 {
        let unused = self.pieces.iter().position(Option::is_none);
        let piece = unused.unwrap_or(self.pieces.len());
        map.set_tag(0, self.runs.insert(piece as u32, 0, map.len() as u32));
        self.empty += 1;
        let new = Some(Piece { map, place });
        match self.pieces.get_mut(piece) {
            Some(old) => *old = new,
            None => self.pieces.push(new),
        }
        piece as u32
    }

    /// Takes a piece out with nothing handed out.
    pub(super) fn remove(&mut self, piece: u32) -> Option<P> {
        let slot = self.pieces.get_mut(piece as usize)?;
        let Piece { map, place } = slot.take_if(|piece| piece.map.is_empty())?;
        self.runs.remove(map.tag(0));
        self.empty -= 1;
        Some(place)
    }

    /// Pieces with nothing handed out.
    pub(super) fn empty(&self) -> usize {
        self.empty
    }

    /// Their numbers.
    pub(super) fn empty_pieces(&self) -> Vec<u32> {
        let pieces = self.pieces.iter().zip(0..);
        let empty = |piece: &Option<Piece<P>>| piece.as_ref().is_some_and(|p| p.map.is_empty());
        pieces.filter(|(piece, _)| empty(piece)).map(|(_, number)| number).collect()
    }

    #[inline(always)]
    fn piece(&self, piece: u32) -> Option<&Piece<P>> {
        self.pieces.get(piece as usize)?.as_ref()
    }

    pub(super) fn map(&self, piece: u32) -> Option<Arc<Map>> {
        Some(self.piece(piece)?.map.clone())
    }

    pub(super) fn place(&self, piece: u32) -> Option<&P> {
        Some(&self.piece(piece)?.place)
    }

    /// The block that was given back last, if it has `len` granules.
    #[inline(always)]
    pub(super) fn take_again(&mut self, len: usize) -> bool {
        let last = self.last;
        if last.len as usize != len {
            return false;
        }
        let Some(piece) = self.piece(last.piece) else { return false };
        piece.map.hand_out(last.start as usize);
        self.last.len = 0;
        true
    }

    /// A block of `len` granules: where it begins. [`Carver::settle`] was called.
    #[inline(always)]
    pub(super) fn take(&mut self, len: usize) -> Option<(&P, usize)> {
        let run = self.runs.find(u32::try_from(len).ok()?)?;
        let free = self.runs.get(run);
        let start = free.start as usize;
        // As `piece`, but `runs` is changed meanwhile.
        let piece = self.pieces.get(free.piece as usize)?.as_ref()?;
        piece.map.hand_out(start);
        self.empty -= usize::from(free.len as usize == piece.map.len());
        if free.len as usize == len {
            self.runs.remove(run);
        } else {
            piece.map.cut(start + len);
            piece.map.set_tag(start + len, run);
            self.runs.change(run, (start + len) as u32, free.len - len as u32);
        }
        Some((&piece.place, start))
    }

    /// Takes a block back whose length [`Map::check`] has told. [`Carver::settle`] was called.
    #[inline(always)]
    pub(super) fn give(&mut self, map: &Map, piece: u32, start: usize, len: usize) {
        map.take_back(start);
        self.last = Last { piece, start: start as u32, len: len as u32 };
    }

    /// Puts the block that was given back last among the free runs: its piece, if nothing in
    /// that is handed out now.
    #[inline(always)]
    pub(super) fn settle(&mut self) -> Option<u32> {
        let Last { piece, start, len } = std::mem::take(&mut self.last);
        if len == 0 { None } else { self.join(piece, start as usize, len as usize) }
    }

    #[inline(never)]
    fn join(&mut self, piece: u32, start: usize, len: usize) -> Option<u32> {
        let Piece { map, .. } = self.pieces.get(piece as usize)?.as_ref()?;
        let end = start + len;
        let after = map.is_free(end).then(|| map.tag(end));
        let (mut first, mut whole) = (start, len as u32);
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
                first = before;
                whole += (start - before) as u32;
                self.runs.change(map.tag(before), before as u32, whole);
            }
            (None, Some(after)) => {
                self.runs.change(after, start as u32, whole);
                map.set_tag(start, after);
            }
            (None, None) => map.set_tag(start, self.runs.insert(piece, start as u32, whole)),
        }
        let empty = first == 0 && whole as usize == map.len();
        self.empty += usize::from(empty);
        empty.then_some(piece)
    }

    /// Keeps `len` granules of a block that has more. [`Carver::settle`] was called.
    pub(super) fn shrink(&mut self, piece: u32, start: usize, len: usize) -> Result<(), Refused> {
        let map = &self.piece(piece).ok_or(Refused::NotLive)?.map;
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
    use super::Carver;

    fn carver(pieces: u32, len: usize) -> Carver<u32> {
        let mut carver = Carver::new();
        for piece in 0..pieces {
            assert_eq!(carver.add(Arc::new(Map::new(len)), piece), piece);
        }
        carver
    }

    fn take(carver: &mut Carver<u32>, len: usize) -> Option<(u32, usize)> {
        carver.settle();
        carver.take(len).map(|(&piece, start)| (piece, start))
    }

    /// Whether the piece is empty then.
    fn give(carver: &mut Carver<u32>, piece: u32, start: usize) -> Result<bool, Refused> {
        carver.settle();
        let map = carver.pieces[piece as usize].as_ref().unwrap().map.clone();
        carver.give(&map, piece, start, map.check(start)?);
        Ok(carver.settle() == Some(piece))
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
        carver.map(0).unwrap().accept(8);
        assert!(give(&mut carver, 0, 8).unwrap());
    }

    #[test]
    fn the_books_agree_with_a_model() {
        let (pieces, len) = (3, 256);
        let mut carver = carver(pieces, len);
        let mut model = BTreeMap::new();
        let mut x = 7u64;
        let steps = if cfg!(miri) { 2_000 } else { 200_000 };
        for step in 0..steps {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (kind, size) = (x >> 60, 1 + (x >> 33) as usize % 20);
            let nth = (x >> 20) as usize % model.len().max(1);
            let picked = model.iter().nth(nth).map(|(&at, &size)| (at, size));
            match (kind, picked) {
                (0..9, _) => {
                    if x >> 10 & 1 == 0 && carver.last.len as usize == size {
                        let last = carver.last;
                        assert!(carver.take_again(size));
                        let at = (last.piece, last.start as usize);
                        assert_eq!(model.insert(at, size), None, "step {step}");
                    } else if let Some(at) = take(&mut carver, size) {
                        assert_eq!(model.insert(at, size), None, "step {step}");
                    }
                }
                (9..15, Some(((piece, start), _))) => {
                    carver.settle();
                    let map = carver.pieces[piece as usize].as_ref().unwrap().map.clone();
                    carver.give(&map, piece, start, map.check(start).unwrap());
                    model.remove(&(piece, start));
                }
                (_, Some(((piece, start), old))) => {
                    let size = size.min(old);
                    carver.settle();
                    carver.shrink(piece, start, size).unwrap();
                    model.insert((piece, start), size);
                }
                _ => {}
            }
            if step % 64 == 0 || cfg!(miri) {
                agree(&carver, &model, pieces, len);
            }
        }
        for &(piece, start) in model.keys() {
            give(&mut carver, piece, start).unwrap();
        }
        for piece in 0..pieces {
            assert_eq!(carver.remove(piece), Some(piece));
        }
    }

    fn agree(carver: &Carver<u32>, model: &BTreeMap<(u32, usize), usize>, pieces: u32, len: usize) {
        if carver.last.len == 0 {
            assert_eq!(carver.empty(), carver.empty_pieces().len());
        }
        for piece in 0..pieces {
            let map = carver.map(piece).unwrap();
            let (mut at, mut free_before) = (0, false);
            for run in map.runs() {
                assert_eq!(run.start, at);
                assert_eq!(model.get(&(piece, at)), run.live.then_some(&run.len));
                assert!(run.live || !free_before, "free runs side by side");
                if !run.live && carver.last.len == 0 {
                    let free = carver.runs.get(map.tag(at));
                    let whole = (free.piece, free.start as usize, free.len as usize);
                    assert_eq!(whole, (piece, at, run.len));
                }
                free_before = !run.live;
                at += run.len;
            }
            assert_eq!(at, len);
        }
    }
}
