! SPDX-License-Identifier: MIT OR Apache-2.0
!
! qsort with a key: the comparator has one argument more than qsort knows.
!
!       gfortran sort.f90 $(pkg-config --libs trampfd)

module trampfd
  use iso_c_binding
  implicit none

  integer(c_int32_t), parameter :: trampfd_arg0 = 256   ! TRAMPFD_ARG(n) is trampfd_arg0 + n

  interface
    function trampfd_new(code, data, reg) bind(c)
      import :: c_funptr, c_ptr, c_int32_t
      type(c_funptr), value :: code
      type(c_ptr), value :: data
      integer(c_int32_t), value :: reg
      type(c_funptr) :: trampfd_new
    end function
    function trampfd_free(closure) bind(c)
      import :: c_funptr, c_int32_t
      type(c_funptr), value :: closure
      integer(c_int32_t) :: trampfd_free
    end function
    subroutine qsort(base, count, size, compare) bind(c)
      import :: c_ptr, c_size_t, c_funptr
      type(c_ptr), value :: base
      integer(c_size_t), value :: count, size
      type(c_funptr), value :: compare
    end subroutine
  end interface
end module

module compare
  use iso_c_binding
  implicit none
contains
  function by_distance(a, b, origin) bind(c)
    integer(c_int), intent(in) :: a, b, origin
    integer(c_int) :: by_distance
    by_distance = abs(a - origin) - abs(b - origin)
  end function
end module

program sort
  use trampfd
  use compare
  implicit none
  integer(c_int), target :: numbers(5) = [1, 9, 5, 12, 7], origin = 8
  type(c_funptr) :: closure
  integer :: n

  closure = trampfd_new(c_funloc(by_distance), c_loc(origin), trampfd_arg0 + 2)
  if (.not. c_associated(closure)) error stop 'no closure'
  call qsort(c_loc(numbers), 5_c_size_t, c_sizeof(origin), closure)
  do n = 1, 5
    print '(a,i0,a,f0.1)', 'number ', numbers(n), ' ', numbers(n) / 2.0
  end do
  if (trampfd_free(closure) /= 0) error stop 'it was not freed'
end program
