from dynsim.kernels.singular import *
from dynsim.kernels.singular import _one,_two,_absorb,_bidiagonal,_take,_units,_begin,_settle,_sweep,_finish,_CHUNK
from dynsim.kernels.panels import *
from dynsim.kernels.simd import at, store, compact
def take(x, work, count, n, d):
    compact()
    like=_one(); size=lanes(like)
    unit=work; chunk=at(work,size)
    for first in range(0,count,size):
        source=x,n,d,first,count
        _units(like,unit,source)
        for row in range(0,n,_CHUNK):
            _take(like,(chunk,(_CHUNK+1)*size),d,(row,min(row+_CHUNK,n)),unit,source)
def absorb(work, reps, n, d):
    compact()
    like=_one(); size=lanes(like)
    small=work; panel=at(work,32*size); down=(d|1)*size; chunk=at(panel,d*down)
    for r in range(reps):
        for row in range(0,n,_CHUNK):
            _absorb(like,(panel,down),(chunk,(_CHUNK+1)*size),d,_CHUNK,small)
def bidiag(work, reps, n, d):
    compact()
    like=_one(); size=lanes(like)
    small=work; panel=at(work,32*size); down=(d|1)*size; chunk=at(panel,d*down)
    for r in range(reps):
        _bidiagonal(like,(panel,down),d,d,(small,at(small,d*16),16),chunk)
def values(work, reps, n, both_n):
    compact()
    like=_two(); size=lanes(like)
    state=work; q=at(work,8*size); keep=at(work, (8+5*n)*size)
    for r in range(reps):
        for k in range(2*n): store(q,k*size,read(like,keep,k*size))
        _begin(like,q,n,state)
        low,high=_settle(like,q,n,state)
        while high:
            _sweep(like,q,n,state,low,high)
            low,high=_settle(like,q,n,state)
def finish(work, reps, n, both_n):
    compact()
    like=_two(); size=lanes(like)
    q=at(work,8*size); keep=at(work, (8+5*n)*size)
    for r in range(reps):
        for k in range(2*n): store(q,k*size,read(like,keep,k*size))
        _finish(like,q,n,work,number(like,0.0))
