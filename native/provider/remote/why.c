#include "why.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool is_printable(unsigned char byte)
{
    return byte >= 0x20 && byte != 0x7f;
}

/* A sentence that is cut in the middle of a UTF-8 character ends before it. */
static void end_cleanly(char *words)
{
    size_t len = strlen(words), begin = len;
    while (begin > 0 && len - begin < 4 && ((unsigned char)words[begin - 1] & 0xc0u) == 0x80)
        begin--;
    if (begin == 0)
        return;
    const unsigned char first = (unsigned char)words[begin - 1];
    const size_t whole = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first >= 0xc0 && len - (begin - 1) < whole)
        words[begin - 1] = '\0';
}

static void say(struct hsm_why *why, const char *format, va_list arguments)
{
    char *words = why->trouble.words;
    const int written = vsnprintf(words, sizeof why->trouble.words, format, arguments);
    if (written < 0)
        words[0] = '\0';
    for (char *at = words; *at != '\0'; at++)
        if (!is_printable((unsigned char)*at))
            *at = '?';
    if (written >= (int)sizeof why->trouble.words)
        end_cleanly(words);
}

hsm_status hsm_why_final(struct hsm_why *why, hsm_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(why, format, arguments);
    va_end(arguments);
    why->status = status;
    why->again = false;
    return status;
}

hsm_status hsm_why_passing(struct hsm_why *why, hsm_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(why, format, arguments);
    va_end(arguments);
    why->status = status;
    why->again = true;
    return status;
}

static int nibble(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

void hsm_words_decode(const char *encoded, size_t len, char *words, size_t room)
{
    size_t out = 0, at = 0;
    while (at < len && out + 1 < room) {
        unsigned char byte = (unsigned char)encoded[at++];
        if (byte == '%' && len - at >= 2 && nibble(encoded[at]) >= 0 && nibble(encoded[at + 1]) >= 0) {
            byte = (unsigned char)(nibble(encoded[at]) * 16 + nibble(encoded[at + 1]));
            at += 2;
        }
        words[out++] = is_printable(byte) ? (char)byte : '?';
    }
    words[out] = '\0';
    if (at < len)
        end_cleanly(words);
}
