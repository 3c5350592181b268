//! The one list of argument counts.

/// Calls macro `$m` once for each number of arguments, 0 to 12, with `A 0, B 1, ..`: a name for
/// the type of each argument, and its index.
macro_rules! each_arity {
    ($m:ident) => {
        $m!();
        $m!(A 0);
        $m!(A 0, B 1);
        $m!(A 0, B 1, C 2);
        $m!(A 0, B 1, C 2, E 3);
        $m!(A 0, B 1, C 2, E 3, G 4);
        $m!(A 0, B 1, C 2, E 3, G 4, H 5);
        $m!(A 0, B 1, C 2, E 3, G 4, H 5, I 6);
        $m!(A 0, B 1, C 2, E 3, G 4, H 5, I 6, J 7);
        $m!(A 0, B 1, C 2, E 3, G 4, H 5, I 6, J 7, K 8);
        $m!(A 0, B 1, C 2, E 3, G 4, H 5, I 6, J 7, K 8, L 9);
        $m!(A 0, B 1, C 2, E 3, G 4, H 5, I 6, J 7, K 8, L 9, M 10);
        $m!(A 0, B 1, C 2, E 3, G 4, H 5, I 6, J 7, K 8, L 9, M 10, N 11);
    };
}
pub(crate) use each_arity;
