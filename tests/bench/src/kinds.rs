//! A thousand kinds of closures: each has code of its own.

use trampfd::{Builder, Closure, Error};

/// The type of the pointer.
pub type Bare = unsafe extern "C" fn(i32) -> i32;
/// Makes a closure of one kind.
pub type Make = fn(&Builder, [u32; 4]) -> Result<Closure<Bare>, Error>;

fn make<const A: i32, const B: i32, const C: i32>(
    builder: &Builder,
    data: [u32; 4],
) -> Result<Closure<Bare>, Error> {
    builder.closure(|a: i32, data: &[u32; 4]| (a * A + B) ^ C ^ data[0] as i32, data)
}

macro_rules! ones {
    ($a:literal $b:literal) => {
        [
            make::<$a, $b, 0>,
            make::<$a, $b, 1>,
            make::<$a, $b, 2>,
            make::<$a, $b, 3>,
            make::<$a, $b, 4>,
            make::<$a, $b, 5>,
            make::<$a, $b, 6>,
            make::<$a, $b, 7>,
            make::<$a, $b, 8>,
            make::<$a, $b, 9>,
        ]
    };
}
macro_rules! tens {
    ($a:literal) => {
        [
            ones!($a 100), ones!($a 101), ones!($a 102), ones!($a 103), ones!($a 104),
            ones!($a 105), ones!($a 106), ones!($a 107), ones!($a 108), ones!($a 109),
        ]
    };
}

/// All of them.
pub const ALL: [[[Make; 10]; 10]; 10] = [
    tens!(3),
    tens!(5),
    tens!(6),
    tens!(7),
    tens!(9),
    tens!(10),
    tens!(11),
    tens!(12),
    tens!(13),
    tens!(14),
];

/// What kind number `n` computes of `a` with first data word `data`.
pub fn result(n: usize, a: i32, data: u32) -> i32 {
    let factor = [3, 5, 6, 7, 9, 10, 11, 12, 13, 14][n / 100];
    (a * factor + 100 + (n / 10 % 10) as i32) ^ (n % 10) as i32 ^ data as i32
}
