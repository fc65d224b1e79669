/* Python module lenet5_int8: the generated C model, called on anything with the buffer protocol
 * (numpy arrays, bytes). Stable ABI of Python 3.11: one binary serves all later versions. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "lenet5_int8.h"

/* Whole images or inputs per call, each item_bytes long; NULL with an exception set on misuse. */
static PyObject *run(PyObject *const *args, Py_ssize_t count, Py_ssize_t item_bytes, int raw_pixels)
{
    unsigned char scratch[LENET5_INT8_SCRATCH_BYTES];
    Py_buffer input, output;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "expected (input, output)");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &input, PyBUF_SIMPLE) != 0) {
        return NULL;
    }
    if (PyObject_GetBuffer(args[1], &output, PyBUF_WRITABLE) != 0) {
        PyBuffer_Release(&input);
        return NULL;
    }
    const Py_ssize_t items = input.len / item_bytes;
    const int fits = input.len == items * item_bytes &&
                     output.len == items * (Py_ssize_t)LENET5_INT8_CLASSES;
    if (!fits) {
        PyErr_Format(PyExc_ValueError,
                     "input has %zd bytes and output %zd; each item takes %zd and %d", input.len,
                     output.len, item_bytes, (int)LENET5_INT8_CLASSES);
    }
    for (Py_ssize_t i = 0; fits && i < items; i++) {
        const char *from = (const char *)input.buf + i * item_bytes;
        int8_t *to = (int8_t *)output.buf + i * (Py_ssize_t)LENET5_INT8_CLASSES;
        if (raw_pixels) {
            lenet5_int8_run((const uint8_t *)from, to, scratch);
        } else {
            lenet5_int8_run_int8((const int8_t *)from, to, scratch);
        }
    }
    PyBuffer_Release(&input);
    PyBuffer_Release(&output);
    if (!fits) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *run_images(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    return run(args, count, LENET5_INT8_IMAGE_BYTES, 1);
}

static PyObject *run_int8(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    return run(args, count, LENET5_INT8_INPUT_BYTES, 0);
}

static PyObject *kernels(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyUnicode_FromString(lenet5_int8_kernels());
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)(void (*)(void))run_images, METH_FASTCALL,
     "run(images, outputs): raw uint8 pixels to int8 outputs, for one image or a batch."},
    {"run_int8", (PyCFunction)(void (*)(void))run_int8, METH_FASTCALL,
     "run_int8(inputs, outputs): the model's own int8 inputs to int8 outputs."},
    {"kernels", kernels, METH_NOARGS, "kernels(): name of the instruction set in use."},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    PyObject *scale = PyFloat_FromDouble((double)LENET5_INT8_OUTPUT_SCALE);
    const int failed =
        scale == NULL || PyModule_AddObjectRef(module, "OUTPUT_SCALE", scale) != 0 ||
        PyModule_AddIntConstant(module, "OUTPUT_ZERO_POINT", LENET5_INT8_OUTPUT_ZERO_POINT) != 0 ||
        PyModule_AddIntConstant(module, "INPUT_BYTES", LENET5_INT8_INPUT_BYTES) != 0 ||
        PyModule_AddIntConstant(module, "IMAGE_BYTES", LENET5_INT8_IMAGE_BYTES) != 0 ||
        PyModule_AddIntConstant(module, "CLASSES", LENET5_INT8_CLASSES) != 0;
    Py_XDECREF(scale);
    return failed ? -1 : 0;
}

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "lenet5_int8", "LeNet-5 int8 as compiled C.", 0, methods, NULL, NULL,
    NULL, NULL};

PyMODINIT_FUNC PyInit_lenet5_int8(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && fill(module) != 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
