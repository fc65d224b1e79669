/* Python module lenet5_int8: the generated C model, called on anything with the buffer protocol
 * (numpy arrays, bytes). device/runner.py loads it as the runtime `native`. */
#include "lenet5_int8.h"
#include "python_abi.h"

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
    Py_IncRef(&_Py_NoneStruct);
    return &_Py_NoneStruct;
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

static int add_float(PyObject *module, const char *name, float value)
{
    PyObject *number = PyFloat_FromDouble((double)value);
    if (number == NULL || PyModule_AddObject(module, name, number) != 0) {
        Py_DecRef(number); /* PyModule_AddObject takes it only when it succeeds */
        return -1;
    }
    return 0;
}

static int fill(PyObject *module)
{
    return add_float(module, "INPUT_SCALE", LENET5_INT8_INPUT_SCALE) != 0 ||
           PyModule_AddIntConstant(module, "INPUT_ZERO_POINT", LENET5_INT8_INPUT_ZERO_POINT) != 0 ||
           add_float(module, "OUTPUT_SCALE", LENET5_INT8_OUTPUT_SCALE) != 0 ||
           PyModule_AddIntConstant(module, "OUTPUT_ZERO_POINT", LENET5_INT8_OUTPUT_ZERO_POINT) != 0 ||
           PyModule_AddIntConstant(module, "INPUT_BYTES", LENET5_INT8_INPUT_BYTES) != 0 ||
           PyModule_AddIntConstant(module, "IMAGE_BYTES", LENET5_INT8_IMAGE_BYTES) != 0 ||
           PyModule_AddIntConstant(module, "CLASSES", LENET5_INT8_CLASSES) != 0;
}

static PyModuleDef definition = {.m_base = {.ob_base = {.ob_refcnt = 1}},
                                 .m_name = "lenet5_int8",
                                 .m_doc = "LeNet-5 int8 as compiled C.",
                                 .m_methods = methods};

PyObject *PyInit_lenet5_int8(void);

PyObject *PyInit_lenet5_int8(void)
{
    PyObject *module = PyModule_Create2(&definition, PYTHON_ABI_VERSION);
    if (module != NULL && fill(module) != 0) {
        Py_DecRef(module);
        return NULL;
    }
    return module;
}
