/* Python module lenet5_int8: the generated C model, called on anything with the buffer protocol
 * (numpy arrays, bytes). device/runner.py loads it as the runtime `native`. */
#include "lenet5_int8.h"
#include "python_abi.h"

/* An argument's bytes; 0 with an exception set if they are not contiguous, not of one byte each
 * (an array of objects holds their addresses), or not that many. */
static int get_bytes(PyObject *argument, Py_buffer *bytes, int flags, Py_ssize_t multiple)
{
    if (PyObject_GetBuffer(argument, bytes, flags) != 0) {
        return 0;
    }
    if (bytes->itemsize != 1 || bytes->len == 0 || bytes->len % multiple != 0) {
        PyErr_Format(PyExc_ValueError, "%zd bytes, each item %zd: not single bytes, a multiple of %zd",
                     bytes->len, bytes->itemsize, multiple);
        PyBuffer_Release(bytes);
        return 0;
    }
    return 1;
}

/* int8 outputs -> (label, probability): the first of the greatest, over their sum. */
static PyObject *most_probable(const int8_t output[LENET5_INT8_CLASSES])
{
    long label = 0, total = 0;
    for (long i = 0; i < (long)LENET5_INT8_CLASSES; i++) {
        total += output[i] - LENET5_INT8_OUTPUT_ZERO_POINT;
        label = output[i] > output[label] ? i : label;
    }
    const long steps = output[label] - LENET5_INT8_OUTPUT_ZERO_POINT;
    PyObject *pair = PyTuple_New(2);
    PyObject *number = PyLong_FromLong(label);
    PyObject *probability = PyFloat_FromDouble((double)steps / (double)(total > 0 ? total : 1));
    if (pair == NULL || number == NULL || probability == NULL) {
        Py_DecRef(pair);
        Py_DecRef(number);
        Py_DecRef(probability);
        return NULL;
    }
    PyTuple_SetItem(pair, 0, number);
    PyTuple_SetItem(pair, 1, probability);
    return pair;
}

static PyObject *classify(PyObject *module, PyObject *argument)
{
    unsigned char scratch[LENET5_INT8_SCRATCH_BYTES];
    int8_t output[LENET5_INT8_CLASSES];
    Py_buffer image;
    (void)module;
    if (!get_bytes(argument, &image, PyBUF_SIMPLE, LENET5_INT8_IMAGE_BYTES)) {
        return NULL;
    }
    lenet5_int8_run(image.buf, output, scratch);
    PyBuffer_Release(&image);
    return most_probable(output);
}

static PyObject *run(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    unsigned char scratch[LENET5_INT8_SCRATCH_BYTES];
    Py_buffer images, outputs;
    (void)module;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "expected (images, outputs)");
        return NULL;
    }
    if (!get_bytes(args[0], &images, PyBUF_SIMPLE, LENET5_INT8_IMAGE_BYTES)) {
        return NULL;
    }
    if (!get_bytes(args[1], &outputs, PyBUF_WRITABLE, LENET5_INT8_CLASSES)) {
        PyBuffer_Release(&images);
        return NULL;
    }
    const Py_ssize_t items = images.len / (Py_ssize_t)LENET5_INT8_IMAGE_BYTES;
    const int fits = outputs.len == items * (Py_ssize_t)LENET5_INT8_CLASSES;
    if (fits) {
        void *thread = PyEval_SaveThread(); /* other threads may run meanwhile */
        for (Py_ssize_t i = 0; i < items; i++) {
            lenet5_int8_run((const uint8_t *)images.buf + i * (Py_ssize_t)LENET5_INT8_IMAGE_BYTES,
                            (int8_t *)outputs.buf + i * (Py_ssize_t)LENET5_INT8_CLASSES, scratch);
        }
        PyEval_RestoreThread(thread);
    } else {
        PyErr_Format(PyExc_ValueError, "%zd bytes of outputs for %zd images", outputs.len, items);
    }
    PyBuffer_Release(&images);
    PyBuffer_Release(&outputs);
    if (!fits) {
        return NULL;
    }
    Py_IncRef(&_Py_NoneStruct);
    return &_Py_NoneStruct;
}

static PyObject *kernels(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyUnicode_FromString(lenet5_int8_kernels());
}

static PyMethodDef methods[] = {
    {"classify", classify, METH_O,
     "classify(image) -> (label, probability): raw uint8 pixels of one image."},
    {"run", (PyCFunction)(void (*)(void))run, METH_FASTCALL,
     "run(images, outputs): raw uint8 pixels to int8 outputs, for one image or a batch."},
    {"kernels", kernels, METH_NOARGS, "kernels(): name of the instruction set in use."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {.m_base = {.ob_base = {.ob_refcnt = 1}},
                                 .m_name = "lenet5_int8",
                                 .m_doc = "LeNet-5 int8 as compiled C.",
                                 .m_methods = methods};

PyObject *PyInit_lenet5_int8(void);

PyObject *PyInit_lenet5_int8(void)
{
    PyObject *module = PyModule_Create2(&definition, PYTHON_ABI_VERSION);
    if (module != NULL && PyModule_AddIntConstant(module, "CLASSES", LENET5_INT8_CLASSES) != 0) {
        Py_DecRef(module);
        return NULL;
    }
    return module;
}
