"use strict";
(function () {
  // The contents stand open beside the text, and closed above it where there is little room.
  const contents = document.querySelector(".contents details");
  const isSmall = window.matchMedia("(max-width: 40rem)");
  function place() { contents.open = !isSmall.matches; }
  isSmall.addEventListener("change", place);
  place();

  // On paper nothing can be opened: what is brief stands open there, as it was before afterwards.
  const opened = [];
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details.brief:not([open])").forEach(function (one) {
      one.open = true;
      opened.push(one);
    });
  });
  window.addEventListener("afterprint", function () {
    opened.splice(0).forEach(function (one) { one.open = false; });
  });

  // What can be typed or cited again can be copied.
  if (!navigator.clipboard) { return; }
  document.querySelectorAll("pre code").forEach(function (code) {
    const copy = document.createElement("button");
    copy.type = "button";
    copy.className = "copy";
    copy.textContent = "Copy";
    copy.addEventListener("click", function () {
      navigator.clipboard.writeText(code.textContent).then(function () {
        copy.textContent = "Copied";
      }, function () {
        copy.textContent = "Not copied: the browser forbids it";
      });
    });
    code.parentNode.after(copy);
  });
}());
