package fair

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whatever is done with a tree: a turn is had by who waits, in the order of its leaf's queue, while
// anybody does; siblings that have waited all the while were served alike, but for one turn of each;
// who comes anew has the next turn among its siblings, or after those that have come likewise; and
// nothing stays behind.
func TestTurnsAreShared(t *testing.T) {
	const most = 100 // that a turn costs
	rapid.Check(t, func(t *rapid.T) {
		type leaf struct {
			node    *Node[int]
			waiting []*Item[int]
			held    int
		}
		root := New[int]()
		leaves := make(map[[2]int]*leaf)
		served := make(map[*Node[int]]map[*Node[int]][2]int64) // of two siblings, since both wait
		next := 0
		children := func(n *Node[int]) (of []*Node[int]) {
			for _, c := range n.children {
				of = append(of, c)
			}
			return of
		}
		waits := func(n *Node[int]) bool { return n.Next() != nil }
		// together forgets what was counted of siblings of which one does not wait.
		together := func() {
			for a, others := range served {
				for b := range others {
					if !waits(a) || !waits(b) {
						delete(others, b)
					}
				}
			}
			for _, n := range append(children(root), root) {
				for _, a := range children(n) {
					for _, b := range children(n) {
						if a != b && waits(a) && waits(b) {
							if served[a] == nil {
								served[a] = make(map[*Node[int]][2]int64)
							}
							if _, there := served[a][b]; !there {
								served[a][b] = [2]int64{}
							}
						}
					}
				}
			}
		}
		charge := func(n *Node[int], cost int64) {
			for a, others := range served {
				for b, had := range others {
					for at := n; at != nil; at = at.parent {
						if at == a {
							had[0] += cost
						} else if at == b {
							had[1] += cost
						}
					}
					others[b] = had
					if lead := had[0] - had[1]; lead > 2*most || lead < -2*most {
						t.Fatalf("of two that wait all the while one was served %d, the other %d", had[0], had[1])
					}
				}
			}
		}
		drop := func(l *leaf, item *Item[int]) {
			at := slices.Index(l.waiting, item)
			if at < 0 || item.Waits() {
				t.Fatal("an item waits that is not in the queue, or the reverse")
			}
			l.waiting = slices.Delete(l.waiting, at, at+1)
			l.node.Hold(-1, -1)
			if l.held--; l.held == 0 {
				for key, other := range leaves {
					if other == l {
						delete(leaves, key)
					}
				}
			}
		}
		some := func(t *rapid.T) (*leaf, *Item[int]) {
			var all []*Item[int]
			for _, l := range leaves {
				all = append(all, l.waiting...)
			}
			if len(all) == 0 {
				return nil, nil
			}
			slices.SortFunc(all, func(a, b *Item[int]) int { return a.Value - b.Value })
			item := rapid.SampledFrom(all).Draw(t, "item")
			for _, l := range leaves {
				if l.node == item.leaf {
					return l, item
				}
			}
			panic("no leaf has it")
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				at := [2]int{rapid.IntRange(0, 2).Draw(t, "branch"), rapid.IntRange(0, 2).Draw(t, "leaf")}
				l := leaves[at]
				if l == nil {
					l = &leaf{node: root.Child(at[0]).Child(at[1])}
					leaves[at] = l
				}
				next++
				l.node.Hold(1, 1)
				l.held++
				l.waiting = append(l.waiting, l.node.Put(next, func(other int) bool { return next < other }))
				together()
			},
			"take": func(t *rapid.T) {
				item := root.Next()
				if item == nil {
					if len(leaves) > 0 {
						t.Fatal("somebody waits, and has no turn")
					}
					return
				}
				for _, l := range leaves {
					if l.node == item.leaf {
						if l.waiting[0] != item {
							t.Fatal("it was not the first of its queue")
						}
						cost := int64(rapid.IntRange(1, most).Draw(t, "cost"))
						node := l.node
						item.Take(cost)
						charge(node, cost)
						drop(l, item)
						break
					}
				}
				together()
			},
			"give up": func(t *rapid.T) {
				l, item := some(t)
				if item == nil {
					return
				}
				item.Remove()
				drop(l, item)
				together()
			},
			"put back": func(t *rapid.T) {
				l, item := some(t)
				if item == nil {
					return
				}
				item.Remove()
				at := slices.Index(l.waiting, item)
				l.waiting[at] = l.node.Put(item.Value, func(other int) bool { return item.Value < other })
				together()
			},
			"": func(t *rapid.T) {
				held := 0
				for _, l := range leaves {
					held += l.held
				}
				if root.Size() != held || root.count != held {
					t.Fatalf("%d of %d are counted", root.Size(), held)
				}
			},
		})
		for item := root.Next(); item != nil; item = root.Next() {
			item.Take(1)
			item.leaf.Hold(-1, -1)
		}
		if root.Size() != 0 || root.Children() != 0 || len(root.ready) != 0 {
			t.Fatal("something stays behind")
		}
	})
}

// However much somebody has waiting, and into however many children it is divided, somebody else
// waits for one turn.
func TestWhoeverAsksForLittleHasTheNextTurn(t *testing.T) {
	root := New[string]()
	put := func(branch, leaf any, value string) {
		n := root.Child(branch).Child(leaf)
		n.Hold(1, 1)
		n.Put(value, nil)
	}
	for i := range 1000 {
		put("greedy", i%50, fmt.Sprint(i))
	}
	for range 500 {
		item := root.Next()
		item.Take(10)
		item.leaf.Hold(-1, -1)
	}
	put("modest", 0, "modest")
	require.Equal(t, "modest", root.Next().Value)
}

// However many come anew, one after the other, who has had a turn has the next after as many of
// theirs as have come by then.
func TestWhoComesAnewPassesNobodyForEver(t *testing.T) {
	root, fresh := New[string](), 0
	put := func(child any, value string) {
		root.Child(child).Hold(1, 1)
		root.Child(child).Put(value, nil)
	}
	take := func() string {
		item := root.Next()
		item.Take(1000)
		item.leaf.Hold(-1, -1)
		return item.Value
	}
	put("old", "old")
	put("old", "old")
	require.Equal(t, "old", take())
	for range 20 {
		for range 3 {
			fresh++
			put(fresh, "fresh")
		}
		if take() == "old" {
			return
		}
	}
	t.Fatal("it was passed by all that came")
}

// Who had nothing waiting for a while has no more turns than the others when it comes back, although
// something of it is still there.
func TestNobodySavesTurnsUp(t *testing.T) {
	root := New[int]()
	put := func(child, count int) {
		for range count {
			root.Child(child).Hold(1, 1)
			root.Child(child).Put(child, nil)
		}
	}
	take := func(count int) (of [2]int) {
		for range count {
			item := root.Next()
			item.Take(100)
			of[item.Value]++
		}
		return of
	}
	put(1, 1)
	put(0, 20)
	require.Equal(t, [2]int{10, 1}, take(11))
	put(1, 10)
	require.Equal(t, [2]int{5, 5}, take(10), "it starts where the other one is")
}

// What a turn has cost may be known only afterwards.
func TestATurnIsChargedAfterwards(t *testing.T) {
	root := New[int]()
	for i := range 20 {
		child := root.Child(i % 2)
		child.Hold(1, 1)
		child.Put(i%2, nil)
	}
	var of [2]int
	for range 6 {
		item := root.Next()
		item.Take(0)
		root.Child(item.Value).Charge(int64(1 + 4*item.Value))
		of[item.Value]++
	}
	require.Equal(t, [2]int{5, 1}, of)
}
