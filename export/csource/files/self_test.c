/* Runs the self-test of @NAME@; the exit code is its result, 0 where this build is right. */
#include "@NAME@.h"

#include <stdio.h>

int main(void)
{
    static const char *const words[] = {
        "passed: every constant is the proved one, and every answer within its proved bound",
        "WRONG ARITHMETIC: compiled with -ffast-math or alike",
        "WRONG CONSTANTS: the file, or the memory that holds it, was changed",
        "WRONG ANSWER: an answer is beyond the proved bound",
        "LOST NAN: NaN came in, and a number came out",
        "WRONG FUNCTION: a function of the mathematics library is not right",
    };
    const int result = @NAME@_self_test();
    printf("@NAME@: %s\n", words[result]);
    return result;
}
