// The last argument is the data.
use trampfd::Closure;

fn main() {
    let _: Closure<unsafe extern "C" fn(i32) -> i32> =
        Closure::new(|a: i32, data: &u8| a + i32::from(*data), 7u64).unwrap();
}
