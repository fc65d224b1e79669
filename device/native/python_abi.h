/* The part of CPython's stable ABI (PEP 384) that binding.c uses, declared here: neither
 * this machine nor a cross compiler then needs Python's headers, and one library serves every
 * CPython from 3.9 on. Names, layouts and values are those of "Stable ABI Contents" and of
 * Include/object.h, moduleobject.h and methodobject.h; tests/device/test_native.py compares them. */
#ifndef PYTHON_ABI_H
#define PYTHON_ABI_H

#include <stddef.h>
#include <sys/types.h>

typedef ssize_t Py_ssize_t;

typedef struct PyObject {
    Py_ssize_t ob_refcnt;
    void *ob_type;
} PyObject;

typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len;
    Py_ssize_t itemsize;
    int readonly;
    int ndim;
    char *format;
    Py_ssize_t *shape;
    Py_ssize_t *strides;
    Py_ssize_t *suboffsets;
    void *internal;
} Py_buffer;

typedef PyObject *(*PyCFunction)(PyObject *, PyObject *);

typedef struct {
    const char *ml_name;
    PyCFunction ml_meth;
    int ml_flags;
    const char *ml_doc;
} PyMethodDef;

typedef struct {
    PyObject ob_base;
    PyObject *(*m_init)(void);
    Py_ssize_t m_index;
    PyObject *m_copy;
} PyModuleDef_Base;

typedef struct {
    PyModuleDef_Base m_base;
    const char *m_name;
    const char *m_doc;
    Py_ssize_t m_size;
    PyMethodDef *m_methods;
    void *m_slots;
    void *m_traverse;
    void *m_clear;
    void *m_free;
} PyModuleDef;

enum { PyBUF_SIMPLE = 0, PyBUF_WRITABLE = 1, METH_NOARGS = 4, METH_O = 8, METH_FASTCALL = 0x80 };
enum { PYTHON_ABI_VERSION = 3 };

extern PyObject _Py_NoneStruct;
extern PyObject *PyExc_TypeError, *PyExc_ValueError;

int PyObject_GetBuffer(PyObject *object, Py_buffer *view, int flags);
void PyBuffer_Release(Py_buffer *view);
void PyErr_SetString(PyObject *type, const char *message);
PyObject *PyErr_Format(PyObject *type, const char *format, ...);
PyObject *PyFloat_FromDouble(double value);
PyObject *PyLong_FromLong(long value);
PyObject *PyUnicode_FromString(const char *text);
PyObject *PyTuple_New(Py_ssize_t size);
int PyTuple_SetItem(PyObject *tuple, Py_ssize_t index, PyObject *item);
void *PyEval_SaveThread(void);
void PyEval_RestoreThread(void *state);
PyObject *PyModule_Create2(PyModuleDef *definition, int api_version);
int PyModule_AddIntConstant(PyObject *module, const char *name, long value);
void Py_IncRef(PyObject *object);
void Py_DecRef(PyObject *object);

#endif
