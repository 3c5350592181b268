;; Guile's foreign functions: the C library sorts by a Scheme procedure, before and after a fork.
(use-modules (system foreign) (rnrs bytevectors) (srfi srfi-1))

(define qsort
  (pointer->procedure void (dynamic-func "qsort" (dynamic-link)) (list '* size_t size_t '*)))

(define numbers (map (lambda (n) (modulo (* 7919 n) 1009)) (iota 1000)))

(define (first-of pointer)
  (bytevector-s64-native-ref (pointer->bytevector pointer 8) 0))

(define (compare sign)
  (procedure->pointer int (lambda (a b) (* sign (- (first-of a) (first-of b)))) (list '* '*)))

(define (sorts? callback less)
  (let ((memory (make-bytevector 8000)))
    (for-each (lambda (n number) (bytevector-s64-native-set! memory (* 8 n) number))
              (iota 1000) numbers)
    (qsort (bytevector->pointer memory) 1000 8 callback)
    (equal? (sort numbers less)
            (map (lambda (n) (bytevector-s64-native-ref memory (* 8 n))) (iota 1000)))))

(define kept (map (lambda (_) (compare -1)) (iota 100)))

(define (check what callbacks less)
  (unless (every (lambda (callback) (sorts? callback less)) (take callbacks 5))
    (format (current-error-port) "~a: wrong\n" what)
    (primitive-exit 1)))

(check "at the start" kept >)
(let ((child (primitive-fork)))
  (when (zero? child)
    (check "in the child" (map (lambda (_) (compare 1)) (iota 100)) <)
    (primitive-exit 0))
  (unless (zero? (status:exit-val (cdr (waitpid child))))
    (primitive-exit 1)))
(check "after the child" kept >)
(check "more" (map (lambda (_) (compare 1)) (iota 3000)) <)
(display "right\n")
