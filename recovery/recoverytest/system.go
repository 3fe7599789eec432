package recoverytest

import "math/big"

// order is that of the scalars of BLS12-381.
var order, _ = new(big.Int).SetString("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001", 16)

// Form is a linear form in unknowns: their coefficients, none of them zero.
type Form map[int]*big.Int

// Add adds a multiple of an unknown.
func (f Form) Add(unknown int, by *big.Int) {
	v := new(big.Int).Set(by)
	if old := f[unknown]; old != nil {
		v.Add(v, old)
	}
	if v.Mod(v, order); v.Sign() == 0 {
		delete(f, unknown)
		return
	}
	f[unknown] = v
}

func (f Form) first() int {
	least := -1
	for u := range f {
		if least < 0 || u < least {
			least = u
		}
	}
	return least
}

type equation struct {
	form  Form
	value *big.Int
}

// System are linear equations over the scalars of BLS12-381, in echelon form.
type System struct{ rows map[int]equation }

// reduce subtracts the system's equations from one. What is left is of unknowns that they say
// nothing of.
func (s *System) reduce(e *equation) {
	for {
		u, found := -1, equation{}
		for v := range e.form {
			if row, ok := s.rows[v]; ok && (u < 0 || v < u) {
				u, found = v, row
			}
		}
		if u < 0 {
			return
		}
		by := new(big.Int).Neg(e.form[u])
		product := new(big.Int)
		for v, c := range found.form {
			e.form.Add(v, product.Mul(c, by))
		}
		e.value.Add(e.value, product.Mul(found.value, by)).Mod(e.value, order)
	}
}

// Know adds an equation: the form has the value. It reports false for one that contradicts those known.
func (s *System) Know(form Form, value *big.Int) bool {
	if s.rows == nil {
		s.rows = make(map[int]equation)
	}
	e := equation{form: Form{}, value: new(big.Int).Mod(value, order)}
	for u, c := range form {
		e.form.Add(u, c)
	}
	s.reduce(&e)
	u := e.form.first()
	if u < 0 {
		return e.value.Sign() == 0
	}
	inverse := new(big.Int).ModInverse(e.form[u], order)
	for v, c := range e.form {
		e.form[v] = new(big.Int).Mod(new(big.Int).Mul(c, inverse), order)
	}
	e.value.Mul(e.value, inverse).Mod(e.value, order)
	s.rows[u] = e
	return true
}

// Value returns the value of a form, if what is known determines it.
func (s *System) Value(form Form) (*big.Int, bool) {
	e := equation{form: Form{}, value: new(big.Int)}
	for u, c := range form {
		e.form.Add(u, c)
	}
	s.reduce(&e)
	return new(big.Int).Mod(e.value.Neg(e.value), order), len(e.form) == 0
}
